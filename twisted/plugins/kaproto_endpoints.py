"""
What kaproto plugs into Twisted's endpoint strings: C{libvirttls}.
"""

from kaproto.security.endpoints import LibvirtTLSParser

libvirttls = LibvirtTLSParser()
