"""
Tests for L{kaproto.registry}.
"""
