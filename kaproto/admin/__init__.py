"""
Administration over a UNIX socket: libvirt's ADMIN program for C{virt-admin}, and kaproto's own for
C{kaproto}.
"""
