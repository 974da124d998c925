"""
Tests for L{kaproto.uri}.
"""
