"""
Helpers for tests of clients; the test plays the server.
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
    @return: an event: a message that is not a reply.
    """
    return call(procedure, payload, 1, program=program, kind=MessageType.MESSAGE)


def closing(reason: int) -> Message:
    """
    @return: the event with a server's reason to close.
    """
    return event(Procedure.CONNECT_EVENT_CONNECTION_CLOSED, Packer().int32(reason).packed())


class ClientTestCase(ClockTestCase):
    """
    Base class for tests of a client; the test plays the server.
    """

    def connect(
        self, factory: KeepAliveClientFactory | None = None
    ) -> Wire[KeepAliveClientProtocol]:
        """
        Connect a client.
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
        Reply to the client's calls until it makes no more.

        @param answers: replies by call, with serial 0, where they differ from those of a libvirtd
            with keepalive.
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
        Connect a client that opens.
        """
        wire = self.connect(factory)
        self.answerAll(wire, answers)
        self.assertTrue(wire.protocol.isAlive())
        return wire

    def factory(self, onOpen: Connected | None = None) -> KeepAliveClientFactory:
        """
        @return: a factory with an C{onOpen} hook.
        """
        return KeepAliveClientFactory(onOpen=onOpen, clock=self.clock)

    def assertRemoteProtocolError(
        self, wire: Wire[KeepAliveClientProtocol], *parts: str
    ) -> RemoteProtocolError:
        """
        Check that the client has aborted the connection with a L{RemoteProtocolError}, whose text
        has these parts.
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
        Connect a client that cannot open, and so closes its connection.

        @return: the failure of C{whenOpen}.
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
