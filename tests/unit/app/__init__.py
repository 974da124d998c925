"""
Tests of L{kaproto.app}, a module for each of its modules.
"""
