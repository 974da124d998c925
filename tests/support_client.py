"""
A client whose server is the test, for tests of clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import (
    RemoteError,
    RemoteProtocolError,
)
from kaproto.wire.message import (
    Message,
    MessageType,
    Status,
    packError,
)
from kaproto.wire.programs import (
    REMOTE_PROGRAM,
    Feature,
    Procedure,
)
from kaproto.wire.xdr import Packer
from tests.support import (
    ADDRESS,
    ClockTestCase,
    Wire,
    call,
    feature,
)

__all__ = [
    "NO",
    "NO_AUTHENTICATION",
    "REFUSED",
    "UNKNOWN_PROCEDURE",
    "YES",
    "Answer",
    "ClientTestCase",
    "Connected",
    "answer",
    "closing",
    "event",
]

YES = b"\0\0\0\1"
NO = b"\0\0\0\0"
NO_AUTHENTICATION = b"\0\0\0\1\0\0\0\0"
UNKNOWN_PROCEDURE = RemoteError(39, 7, "unknown procedure: 66")
REFUSED = RemoteError(9, 7, "operation failed: keepalive is required here", 2)

Connected = Callable[[KeepAliveClientProtocol], Awaitable[object] | None]
Answer = bytes | RemoteError


def answer(message: Message, what: Answer = b"") -> bytes:
    """
    @return: the reply to a call.
    """
    if isinstance(what, RemoteError):
        return message.reply(packError(what), Status.ERROR)
    return message.reply(what)


def event(procedure: int, payload: bytes = b"", program: int = REMOTE_PROGRAM) -> Message:
    """
    @return: a message that answers no call.
    """
    return call(procedure, payload, 1, program=program, kind=MessageType.MESSAGE)


def closing(reason: int) -> Message:
    """
    @return: the event by which a server says why it closes.
    """
    return event(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, Packer().int32(reason).packed())


class ClientTestCase(ClockTestCase):
    """
    A test of a client, whose server is the test.
    """

    def connect(
        self, factory: KeepAliveClientFactory | None = None
    ) -> Wire[KeepAliveClientProtocol]:
        """
        Have a client connect.
        """
        if factory is None:
            factory = KeepAliveClientFactory(clock=self.clock)
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveClientProtocol)
        return self.wire(protocol)

    def answerAll(
        self, wire: Wire[KeepAliveClientProtocol], answers: dict[Message, Answer] | None = None
    ) -> list[Message]:
        """
        Answer what the client calls, until it calls no more.

        @param answers: what to answer to which calls, serial 0, in place of what a libvirtd with
            keepalive would.
        @return: the calls.
        """
        default: dict[Message, Answer] = {
            call(Procedure.AUTH_LIST): NO_AUTHENTICATION,
            feature(Feature.PROGRAM_KEEPALIVE): YES,
            feature(Feature.REMOTE_CLOSE_CALLBACK): YES,
        }
        calls: list[Message] = []
        while asked := wire.take():
            calls += asked
            for each in asked:
                what = (default | (answers or {})).get(each._replace(serial=0), b"")
                wire.feed(answer(each, what))
        return calls

    def connectOpen(
        self,
        factory: KeepAliveClientFactory | None = None,
        answers: dict[Message, Answer] | None = None,
    ) -> Wire[KeepAliveClientProtocol]:
        """
        Have a client connect and open.
        """
        wire = self.connect(factory)
        self.answerAll(wire, answers)
        self.assertTrue(wire.protocol.isAlive())
        return wire

    def factory(self, onOpen: Connected | None = None) -> KeepAliveClientFactory:
        """
        @return: a factory with a hook.
        """
        return KeepAliveClientFactory(onOpen=onOpen, clock=self.clock)

    def assertRemoteProtocolError(
        self, wire: Wire[KeepAliveClientProtocol], *parts: str
    ) -> RemoteProtocolError:
        """
        Check that the client has closed at once for what the server sent, which the reason names.
        """
        self.assertTrue(wire.aborted)
        self.assertFalse(wire.protocol.isAlive())
        wire.lose()
        reason = self.successResultOf(wire.protocol.whenClosed())
        assert isinstance(reason, RemoteProtocolError)
        for part in parts:
            self.assertIn(part, str(reason))
        return reason

    def failsToOpen(
        self, answers: dict[Message, Answer], factory: KeepAliveClientFactory | None = None
    ) -> Exception:
        """
        Have a client connect that cannot open, and that closes for it.

        @return: what C{whenOpen} fails with.
        """
        wire = self.connect(factory)
        opened = wire.protocol.whenOpen()
        self.answerAll(wire, answers)
        self.assertTrue(wire.closing)
        self.assertFalse(wire.protocol.isAlive())
        wire.lose()
        error = self.failureResultOf(opened).value
        assert isinstance(error, Exception)
        self.assertIs(self.failureResultOf(wire.protocol.whenOpen()).value, error)
        self.assertIs(self.successResultOf(wire.protocol.whenClosed()), error)
        self.assertEqual(self.logged(), [])
        return error
