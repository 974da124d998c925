"""
What kaproto plugs into Twisted's C{--auth}: C{scram:FILE}.
"""

from kaproto.authplugin import ScramFileFactory

scram = ScramFileFactory()
