"""
Tests with real programs on real sockets: virsh, python3-libvirt and libvirtd against kaproto.

The tests are skipped, with the reason, where those programs are not installed.  With
C{KAPROTO_REQUIRE_INTEROP=1} in the environment, as in continuous integration, a missing program is
a failure.
"""
