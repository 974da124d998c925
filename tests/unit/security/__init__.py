"""
Tests of L{kaproto.security}, a module for each of its modules.
"""
