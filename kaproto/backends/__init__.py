"""
Backends: they answer calls once a connection is open, as an embedded host or a gateway.
"""
