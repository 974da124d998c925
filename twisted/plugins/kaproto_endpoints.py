"""
What kaproto plugs into Twisted's endpoint strings: C{libvirttls}, C{proxy} and C{tcpkeepalive}.
"""

from kaproto.keepalive.endpointplugins import TCPKeepAliveParser
from kaproto.security.endpoints import LibvirtTLSParser, ProxyParser

libvirttls = LibvirtTLSParser()
proxy = ProxyParser()
tcpkeepalive = TCPKeepAliveParser()
