"""
What kaproto plugs into Twisted's endpoint strings: C{libvirttls}.
"""

from kaproto.endpoints import LibvirtTLSParser

libvirttls = LibvirtTLSParser()
