"""
One connection in libvirt's RPC, from its first byte to its last.
"""
