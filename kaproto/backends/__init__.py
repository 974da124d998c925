"""
Backends, which answer calls once a connection is open: the embedded host and the gateway.
"""
