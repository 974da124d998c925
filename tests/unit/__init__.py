"""
Unit tests, without a network and without subprocesses.
"""
