"""
What kaproto plugs into Twisted's endpoint strings: C{libvirttls} and C{proxy}.
"""

from kaproto.security.endpoints import LibvirtTLSParser, ProxyParser

libvirttls = LibvirtTLSParser()
proxy = ProxyParser()
