"""
Tests for L{kaproto.keepalive}, one module for each of its modules.
"""
