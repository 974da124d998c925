"""
Runs the calls of one connection: queues them, dispatches them to programs, sends the replies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kaproto.errors import RemoteError
from kaproto.interfaces import IProgram
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.rpc.negotiation import Phase, ServerNegotiation
from kaproto.wire.message import Message, Status, packError, rpcError
from kaproto.wire.programs import ErrorCode
from kaproto.wire.xdr import PackError, XDRError

__all__ = ["Caller", "Calls", "Server"]

# A member of an enumeration takes longer to look up than a global name.
_OK: Final = Status.OK


class Caller(Protocol):
    """
    The part of the connection that L{Calls} uses.

    @ivar negotiation: decides which procedures may be called now.
    @ivar hooks: the protocol, which is passed to programs.
    """

    negotiation: ServerNegotiation
    hooks: Any

    def send(self, data: bytes, /) -> None:
        """
        Write a reply.
        """

    def sendNow(self, data: bytes, /) -> None:
        """
        Write a reply that is likely to be the last for now.
        """

    def callAnswered(self) -> None:
        """
        A reply was written.
        """


class Server(Protocol):
    """
    The part of the factory that L{Calls} uses.

    @ivar programs: the programs that can be called, by number.
    @ivar limits: the limits on running and waiting calls.
    """

    programs: dict[int, IProgram]
    limits: Limits


class Calls:
    """
    Starts calls in order of arrival, up to C{limits.runningCalls} at once, and replies to each when
    it finishes.  Before the client has logged in, each call waits for the previous one, because a
    login is a dialogue.

    The connection keeps reading while calls wait, so that pings are answered ahead of them.
    Reading stops when the queue is L{full}.
    """

    __slots__ = (
        "_bytes",
        "_connection",
        "_held",
        "_running",
        "_server",
        "_waiting",
    )
    _log = Logger(observer=BOUNDS)

    def __init__(self, connection: Caller, server: Server) -> None:
        self._connection: Caller | None = connection
        self._server = server
        self._running: dict[Deferred[None], Message] | None = None
        self._waiting: deque[Message] | None = None
        self._bytes = 0
        self._held = False

    @property
    def idle(self) -> bool:
        """
        Whether no call is running or waiting.
        """
        return not self._running and not self._waiting

    @property
    def underWay(self) -> int:
        """
        The number of running and waiting calls.
        """
        return len(self._running or ()) + len(self._waiting or ())

    @property
    def full(self) -> bool:
        """
        Whether the queue has reached C{limits.waitingCalls} or C{limits.waitingBytes}.
        """
        if self._waiting is None:
            return False
        limits = self._server.limits
        return len(self._waiting) >= limits.waitingCalls or self._bytes >= limits.waitingBytes

    def received(self, message: Message) -> bool:
        """
        A call arrived: start or queue it.

        @return: whether the queue is L{full}.
        """
        if not self._waiting and self._mayStart():
            self._start(message)
            return False
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._bytes += len(message.payload)
        return self.full

    def hold(self) -> None:
        """
        Start no more calls, because the peer does not read its replies.
        """
        self._held = True

    def proceed(self) -> None:
        """
        Start calls again, the waiting ones first.
        """
        self._held = False
        self._startWaiting()

    def clear(self) -> None:
        """
        The connection is gone: drop the waiting calls and cancel the running ones.
        """
        # Break the cycle of references, to free the connection without the garbage collector.
        self._connection = None
        self._waiting = None
        running, self._running = self._running, None
        for call in running or ():
            call.cancel()

    def failAll(self, error: RemoteError) -> None:
        """
        Fail all running and waiting calls with this error.
        """
        for message in [*(self._running or {}).values(), *(self._waiting or ())]:
            self.fail(message, error)
        self.clear()

    def answer(self, message: Message, payload: bytes) -> None:
        """
        Reply that a call succeeded, or failed if the result cannot be sent.
        """
        try:
            reply = message.reply(payload)
        except Exception:
            self._failed(Failure(), message)
            return
        self._reply(reply)

    def fail(self, message: Message, error: RemoteError) -> None:
        """
        Reply that a call failed.
        """
        self._reply(message.reply(packError(error), Status.ERROR))

    def _reply(self, reply: bytes) -> None:
        connection = self._connection
        if connection is not None:
            if self._running or self._waiting:
                connection.send(reply)
            else:
                connection.sendNow(reply)
            connection.callAnswered()

    def _mayStart(self) -> bool:
        if self._held or not self._running or self._connection is None:
            return not self._held
        # A client may send many passwords without waiting for the answers.  Only one is checked at
        # a time.  The others wait here at almost no cost, and are dropped when the client leaves.
        if self._connection.negotiation.phase is Phase.AUTHENTICATING:
            return False
        return len(self._running) < self._server.limits.runningCalls

    def _startWaiting(self) -> None:
        while self._waiting and self._mayStart():
            message = self._waiting.popleft()
            self._bytes -= len(message.payload)
            self._start(message)
        if not self._waiting:
            self._waiting = None

    def _start(self, message: Message) -> None:
        try:
            result = self._dispatch(message)
        except Exception:
            self._failed(Failure(), message)
            return
        if isinstance(result, bytes):
            self.answer(message, result)
        else:
            self._finishLater(message, result)

    def _finishLater(self, message: Message, result: Awaitable[bytes]) -> None:
        call: Deferred[None] = Deferred.fromCoroutine(_awaited(result)).addCallbacks(
            lambda payload: self.answer(message, payload), self._failed, errbackArgs=(message,)
        )
        if not call.called:
            if self._running is None:
                self._running = {}
            self._running[call] = message
            call.addCallback(lambda _: self._finished(call))

    def _finished(self, call: Deferred[None]) -> None:
        if self._running is not None and self._connection is not None:
            self._running.pop(call, None)
            self._startWaiting()
            self._connection.callAnswered()

    def _dispatch(self, message: Message) -> bytes | Awaitable[bytes]:
        number, version, procedure = message[:3]
        program = self._server.programs.get(number)
        if program is None or program.version != version:
            raise rpcError(f"Cannot find program {_signed(number)} version {_signed(version)}")
        if message.status != _OK:
            raise rpcError(f"Unexpected message status {message.status & 0xFFFFFFFF}")
        if not program.knows(procedure):
            raise rpcError(f"unknown procedure: {procedure}")
        assert self._connection is not None
        self._connection.negotiation.check(number, procedure)
        return program.callReceived(self._connection.hooks, procedure, message.payload)

    def _failed(self, failure: Failure, message: Message) -> None:
        if self._connection is not None:
            self._answerFailed(failure, message)
        # When a coroutine has awaited a Deferred that failed, the failure and the frames of its
        # traceback refer to each other and to the connection.  Break that cycle too.
        failure.tb = None
        assert failure.value is not None
        failure.value.with_traceback(None)

    def _answerFailed(self, failure: Failure, message: Message) -> None:
        error = failure.value
        if isinstance(error, XDRError) and not isinstance(error, PackError):
            error = rpcError("Unable to decode message payload")
        elif not isinstance(error, RemoteError) or not _canBeSent(error):
            self._log.failure(
                "procedure {message.procedure} of program {message.program} failed",
                failure,
                message=message._replace(payload=b""),
            )
            error = rpcError(
                f"internal error: procedure {message.procedure} failed; the server's log has more",
                ErrorCode.INTERNAL_ERROR,
            )
        self.fail(message, error)


def _canBeSent(error: RemoteError) -> bool:
    try:
        packError(error)
    except XDRError:
        return False
    return True


async def _awaited(result: Awaitable[bytes]) -> bytes:
    return await result


def _signed(word: int) -> int:
    """
    Convert an unsigned word to a signed number: libvirtd prints these words with C{%d}, and clients
    may compare the text of its errors.
    """
    return word - (word >> 31 << 32)
