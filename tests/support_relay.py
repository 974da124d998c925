"""
A relay between real sockets, read by a L{RelayReader} without a running reactor.
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
    Twisted's transport, over a UNIX socket that stands in for a TCP socket.
    """

    logstr = "end"

    def getPeer(self) -> IPv4Address:
        """
        @return: a fixed address.
        """
        return IPv4Address("TCP", "192.0.2.1", 5)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Do nothing, since a UNIX socket has no such option.
        """


class End(Plain, isBase=True):
    """
    One end of a relay.

    @ivar far: the peer's socket.
    """

    far: socket.socket
    transport: Any

    def read(self) -> bytes:
        """
        @return: the bytes that arrived at the peer.
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
    Base class for tests of a relay between real sockets, without a running reactor.

    @ivar ways: both directions, each as the sending and the receiving end.
    """

    def setUp(self) -> None:
        """
        Connect two ends and start the relay.
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
        Send bytes from an end's peer, and have the reader read them.
        """
        end.far.sendall(data)
        self.reader.doRead()

    def writeOut(self, end: End) -> bytes:
        """
        Do what the reactor does, until everything is written to an end.

        @return: the bytes that arrived at the end's peer.
        """
        data = end.read()
        while end.transport in self.reactor.getWriters():
            end.transport.doWrite()
            data += end.read()
        return data
