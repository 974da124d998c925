"""
libvirt's connection URIs: where to connect, and what to open there.

The grammar is that of RFC 3986.  libvirt adds a transport after a plus sign in the scheme, a
semicolon that separates parameters as an ampersand does, and parameters that are for the client and
not sent to the server.
"""

from kaproto.uri.drivers import checkName, isURI
from kaproto.uri.parsing import TCP_PORT, TLS_PORT, ConnectionURI, parseURI

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "checkName", "isURI", "parseURI"]
