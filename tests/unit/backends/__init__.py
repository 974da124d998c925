"""
Tests of L{kaproto.backends}, a module for each of its modules.
"""
