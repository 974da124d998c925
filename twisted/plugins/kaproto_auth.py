"""
What kaproto plugs into Twisted's C{--auth}: C{scram:FILE}.
"""

from kaproto.security.authplugin import ScramFileFactory

scram = ScramFileFactory()
