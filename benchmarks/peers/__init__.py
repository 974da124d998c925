"""
Other servers for comparison.  Each is a program: C{python -m benchmarks.peers.NAME PORT ...}.
"""
