"""
A server whose client is the test, for tests of servers.
"""

from __future__ import annotations

from kaproto.counters import Counters
from kaproto.limits import Limits
from kaproto.policies import Policy
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import (
    Message,
    MessageType,
    Status,
)
from kaproto.wire.programs import (
    CloseReason,
    Procedure,
)
from kaproto.wire.xdr import Packer
from tests.support import (
    OPEN,
    ClockTestCase,
    FakeBackend,
    Probe,
    Wire,
    call,
)

__all__ = [
    "ALREADY_OPEN",
    "AUTH_LIST",
    "CLOSE",
    "LIMITS",
    "NOT_OPEN",
    "REGISTER",
    "UNDECODABLE",
    "ServerTestCase",
    "farewell",
    "rpc",
]

AUTH_LIST = call(Procedure.AUTH_LIST)
CLOSE = call(Procedure.CONNECT_CLOSE, serial=9)
REGISTER = call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK)
NOT_OPEN = (1, 7, 2, "internal error: hypervisor connection not open")
ALREADY_OPEN = (1, 7, 2, "internal error: connection already open")
UNDECODABLE = (39, 7, 2, "Unable to decode message payload")
LIMITS = Limits()


def rpc(message: str) -> tuple[int, int, int, str]:
    """
    @return: the error libvirtd has for calls that it does not let through.
    """
    return 39, 7, 2, message


def farewell(reason: CloseReason) -> Message:
    """
    @return: the event that tells a client why the server closes.
    """
    payload = Packer().int32(reason).packed()
    return call(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, payload, 1, kind=MessageType.MESSAGE)


class ServerTestCase(ClockTestCase):
    """
    A test of a server, whose client is the test.
    """

    def setUp(self) -> None:
        """
        Have something to serve.
        """
        super().setUp()
        self.backend = FakeBackend()
        self.probe = Probe()

    def connect(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client.
        """
        return self.serve(policy, self.backend, [self.probe])

    def connectOpen(
        self, policy: Policy | None = None, *before: Message
    ) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client and open.

        @param before: what the client calls first.
        """
        wire = self.connect(policy)
        wire.feed(*before, OPEN)
        self.assertEqual({reply.status for reply in wire.take()}, {Status.OK})
        return wire

    def callLater(self, wire: Wire[KeepAliveServerProtocol], count: int) -> None:
        """
        Have calls arrive that are answered when the test says so.
        """
        wire.feed(*(Probe.message(Probe.LATER, serial=serial) for serial in range(count)))
        self.turns()

    def answerAll(self) -> None:
        """
        Answer the calls that are running.
        """
        waiting, self.probe.waiting = self.probe.waiting, []
        for each in waiting:
            each.callback(b"")

    def assertUsable(self, wire: Wire[KeepAliveServerProtocol], about: object = None) -> None:
        """
        Check that the server answers further calls.
        """
        self.assertFalse(wire.closing, about)
        self.assertEqual(wire.ask(AUTH_LIST).status, Status.OK, about)

    def counted(self, wire: Wire[KeepAliveServerProtocol], **expected: int) -> None:
        """
        Check all counters: those that are not given are zero, but for the connection itself.
        """
        self.assertEqual(wire.protocol.factory.counters, Counters(accepted=1, **expected))
