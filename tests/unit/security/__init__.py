"""
Tests for L{kaproto.security}, one module for each of its modules.
"""
