"""
Parses libvirt's connection URIs: the place to connect to, and the name to open there.

The grammar is that of RFC 3986, with three additions.  The scheme may have a transport, after a
plus sign.  Parameters may be separated by semicolons instead of ampersands.  Some parameters are
for the client, and are not sent to the server.
"""

from kaproto.uri.drivers import checkName, isURI
from kaproto.uri.parsing import TCP_PORT, TLS_PORT, ConnectionURI, parseURI

__all__ = ["TCP_PORT", "TLS_PORT", "ConnectionURI", "checkName", "isURI", "parseURI"]
