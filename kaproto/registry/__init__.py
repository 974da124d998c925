"""
The registry: where the clients of all nodes of a fleet are listed, and disconnected from.
"""
