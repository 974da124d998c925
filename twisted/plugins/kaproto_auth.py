"""
The plugin for Twisted's C{--auth}: C{scram:FILE}.
"""

from kaproto.security.authplugin import ScramFileFactory

scram = ScramFileFactory()
