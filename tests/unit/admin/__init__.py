"""
Tests for L{kaproto.admin}.
"""
