"""
Twisted plugins that parse kaproto's endpoint strings.

Twisted imports this module in every program that parses an endpoint string.  So the module of an
endpoint is imported only when its string is used.
"""

from __future__ import annotations

from importlib import import_module

import attrs
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

__all__ = ["Parser", "ServerParser"]


@implementer(IPlugin, IStreamServerEndpointStringParser)
@attrs.frozen
class ServerParser:
    """
    Makes server endpoints from strings with a prefix.

    @ivar prefix: the prefix.
    @ivar module: the module whose C{serverEndpoint} makes an endpoint from a reactor, positional
        arguments and keywords, or raises C{ValueError}.
    """

    prefix: str
    module: str

    def parseStreamServer(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        """
        @raise ValueError: when an argument is missing or malformed, or a file cannot be used.
        """
        make = import_module(self.module).serverEndpoint
        return IStreamServerEndpoint(make(reactor, args, kwargs))


@implementer(IStreamClientEndpointStringParserWithReactor)
@attrs.frozen
class Parser(ServerParser):
    """
    Makes client endpoints too, with the module's C{clientEndpoint}.
    """

    def parseStreamClient(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamClientEndpoint:
        """
        @raise ValueError: when an argument is missing or malformed.
        """
        make = import_module(self.module).clientEndpoint
        return IStreamClientEndpoint(make(reactor, args, kwargs))
