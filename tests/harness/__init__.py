"""
Long tests: mutated bytes, broken networks, attacks, and soak tests.
"""
