"""
A relay between real sockets, read past a reactor that does not run.
"""

from __future__ import annotations

import select
import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kaproto.backends.relay import Relay
from kaproto.backends.relayreader import RelayReader
from kaproto.rpc.protocol import KeepAliveFactory
from kaproto.wire.message import packMessage
from kaproto.wire.programs import Procedure
from tests.support_gateway import call
from tests.support_protocol import Plain

__all__ = ["HOSTNAME", "End", "SocketRelayTestCase", "Transport"]

HOSTNAME = packMessage(call(Procedure.CONNECT_GET_HOSTNAME))
"""
A call without arguments, as short as a ping.
"""


class Transport(tcp.Connection):
    """
    Twisted's, over a socket that stands in for one of TCP.
    """

    logstr = "end"

    def getPeer(self) -> IPv4Address:
        """
        Where the end is.
        """
        return IPv4Address("TCP", "192.0.2.1", 5)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        The socket has no such option.
        """


class End(Plain, isBase=True):
    """
    One end of a relay.

    @ivar far: the socket at the other end of its connection.
    """

    far: socket.socket
    transport: Any

    def read(self) -> bytes:
        """
        What has come to the other end.
        """
        data = b""
        try:
            while piece := self.far.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data


class SocketRelayTestCase(SynchronousTestCase):
    """
    A relay between real sockets, read past a reactor that does not run.

    @ivar ways: from which end messages come, and to which they go.
    """

    def setUp(self) -> None:
        """
        Relay between two ends.
        """
        if not hasattr(select, "epoll"):
            raise SkipTest("this system has no epoll")
        self.reactor = MemoryReactorClock()
        self.clock = Clock()
        self.factory = KeepAliveFactory(clock=self.clock)
        reader = RelayReader.orNone(self.reactor, self.factory._monitor.pacemaker)
        assert reader is not None
        self.reader = reader
        self.client, self.upstream = self.connect(), self.connect()
        self.relay = Relay(*cast(Any, (self.client._kaproto, self.upstream._kaproto)))
        self.relay.start(self.reader)
        self.ways = ((self.client, self.upstream), (self.upstream, self.client))

    def connect(self) -> End:
        """
        Connect one end.
        """
        near, far = socket.socketpair()
        for each in (near, far):
            self.addCleanup(each.close)
            each.setblocking(False)
        end = End()
        end.far, end.factory = far, self.factory
        transport = Transport(near, cast(Any, end), cast(IReactorFDSet, self.reactor))
        transport.connected = True
        transport.startReading()
        end.makeConnection(cast(Any, transport))
        return end

    def send(self, end: End, data: bytes) -> None:
        """
        Have bytes come from an end, and the reader look.
        """
        end.far.sendall(data)
        self.reader.doRead()

    def writeOut(self, end: End) -> bytes:
        """
        Do what the reactor does, until nothing is left to write to an end.

        @return: what has come there.
        """
        data = end.read()
        while end.transport in self.reactor.getWriters():
            end.transport.doWrite()
            data += end.read()
        return data
