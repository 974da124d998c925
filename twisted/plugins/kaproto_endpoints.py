"""
The plugins for Twisted's endpoint strings.
"""

from kaproto.endpointplugins import Parser, ServerParser

keepalive = Parser("keepalive", "kaproto.watch.endpoints")
libvirttls = ServerParser("libvirttls", "kaproto.security.endpoints")
proxy = ServerParser("proxy", "kaproto.security.proxystring")
tcpkeepalive = Parser("tcpkeepalive", "kaproto.keepalive.tcpkeepalive")
