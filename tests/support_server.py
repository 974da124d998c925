"""
Helpers for tests of servers; the test plays the client.
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
    @return: libvirtd's error for calls that it does not dispatch.
    """
    return 39, 7, 2, message


def farewell(reason: CloseReason) -> Message:
    """
    @return: the event with the server's reason to close.
    """
    payload = Packer().int32(reason).packed()
    return call(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, payload, 1, kind=MessageType.MESSAGE)


class ServerTestCase(ClockTestCase):
    """
    Base class for tests of a server; the test plays the client.
    """

    def setUp(self) -> None:
        """
        Create a backend and a program.
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
        Connect a client that opens.

        @param before: calls to make before that.
        """
        wire = self.connect(policy)
        wire.feed(*before, OPEN)
        self.assertEqual({reply.status for reply in wire.take()}, {Status.OK})
        return wire

    def callLater(self, wire: Wire[KeepAliveServerProtocol], count: int) -> None:
        """
        Make calls that L{answerAll} will answer.
        """
        wire.feed(*(Probe.message(Probe.LATER, serial=serial) for serial in range(count)))
        self.turns()

    def answerAll(self) -> None:
        """
        Answer all running calls.
        """
        waiting, self.probe.waiting = self.probe.waiting, []
        for each in waiting:
            each.callback(b"")

    def assertUsable(self, wire: Wire[KeepAliveServerProtocol], about: object = None) -> None:
        """
        Check that the server still answers calls.
        """
        self.assertFalse(wire.closing, about)
        self.assertEqual(wire.ask(AUTH_LIST).status, Status.OK, about)

    def counted(self, wire: Wire[KeepAliveServerProtocol], **expected: int) -> None:
        """
        Check all counters: those not given must be zero, except C{accepted}.
        """
        self.assertEqual(wire.protocol.factory.counters, Counters(accepted=1, **expected))
