"""
Tests for L{kaproto.status}.
"""
