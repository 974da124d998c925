"""
Servers to compare with, each a program of its own: C{python -m benchmarks.peers.NAME PORT ...}.
"""
