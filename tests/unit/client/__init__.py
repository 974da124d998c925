"""
Tests of L{kaproto.client}, a module for each of its modules.
"""
