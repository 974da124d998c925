"""
What answers once a connection is open.
"""
