"""
Tests of L{kaproto.workers}, a module for each of its modules.
"""
