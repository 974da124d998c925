"""
Tests of L{kaproto.wire}, a module for each of its modules.
"""
