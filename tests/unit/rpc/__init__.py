"""
Tests for L{kaproto.rpc}, one test module for each of its modules.
"""
