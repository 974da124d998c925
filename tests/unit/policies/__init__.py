"""
Tests for L{kaproto.policies}, one module for each of its modules.
"""
