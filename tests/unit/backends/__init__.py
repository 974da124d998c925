"""
Tests for L{kaproto.backends}, one module for each of its modules.
"""
