"""
Tests of L{kaproto.rpc}, a module for each of its modules.
"""
