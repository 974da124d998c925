"""
Tests of L{kaproto.watch}, a module for each of its modules.
"""
