"""
Tests for L{kaproto.app}, one test module for each of its modules.
"""
