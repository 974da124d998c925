"""
libvirt's RPC as bytes: XDR values, framed messages, program numbers.

Nothing here depends on sockets, time or Twisted.
"""
