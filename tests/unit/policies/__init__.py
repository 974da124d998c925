"""
Tests of L{kaproto.policies}, a module for each of its modules.
"""
