"""
Tests for L{kaproto.wire}, one test module for each of its modules.
"""
