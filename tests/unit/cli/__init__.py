"""
Tests for L{kaproto.cli}.
"""
