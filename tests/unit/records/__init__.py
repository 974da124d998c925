"""
Tests for L{kaproto.records}.
"""
