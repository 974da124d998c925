"""
Tests for L{kaproto.client}, one module for each of its modules.
"""
