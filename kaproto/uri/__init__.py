"""
Parses libvirt's connection URIs: the place to connect to, and the name to open there.

The grammar is that of RFC 3986.  libvirt adds a transport after a plus sign in the scheme, a
semicolon that separates parameters like an ampersand, and parameters for the client only, which are
not sent to the server.
"""

from kaproto.uri.drivers import checkName, isURI
from kaproto.uri.parsing import TCP_PORT, TLS_PORT, ConnectionURI, parseURI

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "checkName", "isURI", "parseURI"]
