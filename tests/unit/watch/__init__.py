"""
Tests for L{kaproto.watch}, one test module for each of its modules.
"""
