"""
What Twisted needs to find the endpoint strings C{keepalive:} and C{tcpkeepalive:}.

Twisted imports this module in every program that parses an endpoint string, so it imports the rest
when that is used.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

__all__ = ["KeepAliveParser", "TCPKeepAliveParser"]


@implementer(
    IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor
)
class KeepAliveParser:
    """
    Makes endpoints of C{keepalive:ENDPOINT:interval=5:count=5}, for servers and clients: see
    L{kaproto.watch.endpoints}.
    """

    prefix = "keepalive"

    def parseStreamServer(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        """
        @raise ValueError: when an argument is malformed.
        """
        from kaproto.watch.endpoints import serverEndpoint

        return serverEndpoint(
            reactor, cast(tuple[str, ...], args), cast(dict[str, str], dict(kwargs))
        )

    def parseStreamClient(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamClientEndpoint:
        """
        @raise ValueError: when an argument is malformed.
        """
        from kaproto.watch.endpoints import clientEndpoint

        return clientEndpoint(
            reactor, cast(tuple[str, ...], args), cast(dict[str, str], dict(kwargs))
        )


@implementer(
    IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor
)
class TCPKeepAliveParser:
    """
    Makes endpoints of C{tcpkeepalive:ENDPOINT:interval=5:count=5}, for servers and clients: see
    L{kaproto.keepalive.tcpkeepalive}.
    """

    prefix = "tcpkeepalive"

    def parseStreamServer(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        """
        @raise ValueError: when an argument is malformed.
        """
        from kaproto.keepalive.tcpkeepalive import serverEndpoint

        return serverEndpoint(
            reactor, cast(tuple[str, ...], args), cast(dict[str, str], dict(kwargs))
        )

    def parseStreamClient(
        self, reactor: object, *args: object, **kwargs: object
    ) -> IStreamClientEndpoint:
        """
        @raise ValueError: when an argument is malformed.
        """
        from kaproto.keepalive.tcpkeepalive import clientEndpoint

        return clientEndpoint(
            reactor, cast(tuple[str, ...], args), cast(dict[str, str], dict(kwargs))
        )
