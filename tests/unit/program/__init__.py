"""
Tests for L{kaproto.program}.
"""
