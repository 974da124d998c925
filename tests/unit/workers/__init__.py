"""
Tests for L{kaproto.workers}, one test module for each of its modules.
"""
