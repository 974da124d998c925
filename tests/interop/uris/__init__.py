"""
Compares how libvirt's own client and kaproto's read URIs.  Both get the same ones, in a network and
file system where every address and socket belongs to a server that records connections.
"""
