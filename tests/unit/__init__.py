"""
Tests of one module each, without a network and without other processes.
"""
