"""
A conversation in libvirt's RPC, from the first byte to the last.
"""
