"""
Long trials: mutated bytes, broken networks, attacks, days of work in minutes.
"""
