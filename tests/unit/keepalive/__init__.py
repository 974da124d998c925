"""
Tests of L{kaproto.keepalive}, a module for each of its modules.
"""
