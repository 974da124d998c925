"""
URIs as libvirt's own client reads them, and as kaproto does: the same ones given to both, in a
network and a file system of their own where every address and every socket belongs to a server
that records who comes.
"""
