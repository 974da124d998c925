"""
libvirt's RPC as bytes: XDR values, framed messages, program numbers.

Nothing in here knows of sockets, time or Twisted.
"""
