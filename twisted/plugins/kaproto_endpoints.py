"""
What kaproto plugs into Twisted's endpoint strings.
"""

from kaproto.endpointplugins import KeepAliveParser, TCPKeepAliveParser
from kaproto.security.endpoints import LibvirtTLSParser, ProxyParser

keepalive = KeepAliveParser()
libvirttls = LibvirtTLSParser()
proxy = ProxyParser()
tcpkeepalive = TCPKeepAliveParser()
