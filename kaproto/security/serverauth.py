"""
The server's side of authentication: answers the client's login calls, after the delay that
L{kaproto.security.guessing} demands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kaproto.errors import AuthenticationFailed
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.security.admission import mechanismsFor
from kaproto.security.loginqueue import ILoginQueue, ITurn
from kaproto.security.mechanism import OpenGate, SASLFailed
from kaproto.security.saslserver import SASLServer
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ErrorCode
from kaproto.wire.sasl import SASLResult, packMechanisms, packResult, unpackStart, unpackStep

__all__ = ["REFUSED", "Authentication", "Candidate", "HoldsDeadline"]

REFUSED: Final = "authentication failed: authentication failed"
"""
The only error message that a client gets, in libvirtd's words.
"""


class HoldsDeadline(Protocol):
    """
    Stops and restarts a client's deadline.
    """

    def hold(self) -> float:
        """
        Stop the deadline while the client waits for its turn to log in.

        @return: the seconds that are left.
        """

    def resume(self, left: float, /) -> None:
        """
        Start the deadline again.

        @param left: the seconds that L{hold} returned.
        """


class Candidate(Protocol):
    """
    The part of a connection that L{Authentication} needs.

    @ivar peer: the client.
    """

    peer: Peer

    @property
    def limits(self) -> HoldsDeadline:
        """
        The object that has the client's deadline.
        """

    def authenticated(self, user: str) -> None:
        """
        The client has logged in.
        """

    def authenticationFailed(self) -> None:
        """
        The client has failed to log in, and may try again.
        """

    def endSoon(self, reason: Exception) -> None:
        """
        Close the connection after the reply to the current call.
        """


class Authentication:
    """
    One client's login.
    """

    _log = Logger(observer=BOUNDS)

    def __init__(
        self,
        candidate: Candidate,
        portal: Portal,
        limits: Callable[[], Limits],
        clock: IReactorTime,
        queue: ILoginQueue,
    ) -> None:
        """
        @param portal: decides who may log in.
        @param limits: returns the current limits of the server.
        @param queue: decides when passwords may be checked.
        """
        self._candidate = candidate
        self._limits = limits
        self._clock = clock
        self._watch = watch = _Stopwatch(clock)
        mechanisms = mechanismsFor(portal, secure=candidate.peer.secure)
        # The gates have no reference to this object: without a cycle, both are freed at once.
        self._server = SASLServer(portal, mechanisms, lambda: _LoginGate(candidate, queue, watch))

    async def init(self, payload: bytes) -> bytes:
        """
        Answer C{AUTH_SASL_INIT}.

        @raise kaproto.errors.RemoteError: if the client is refused.  L{start} and L{step} raise it
            too.
        """

        async def init() -> bytes:
            return packMechanisms(self._server.init())

        return await self._answer(init)

    async def start(self, payload: bytes) -> bytes:
        """
        Answer C{AUTH_SASL_START}.
        """
        mechanism, data = unpackStart(payload)
        return await self._answer(lambda: self._finish(self._server.start(mechanism, data)))

    async def step(self, payload: bytes) -> bytes:
        """
        Answer C{AUTH_SASL_STEP}.
        """
        data = unpackStep(payload)
        return await self._answer(lambda: self._finish(self._server.step(data)))

    def abandon(self) -> None:
        """
        The client has disconnected.
        """
        self._server.abandon()

    async def _finish(self, going: Awaitable[SASLResult]) -> bytes:
        result = await going
        if result.complete:
            assert self._server.user is not None, "the client is authenticated"
            self._candidate.authenticated(self._server.user)
        return packResult(result)

    async def _answer(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        self._watch.start()
        try:
            # Without this check, a client that does not wait for replies would get more attempts.
            if self._server.failures < self._limits().loginTries:
                return await work()
        except CancelledError:
            raise
        except SASLFailed as error:
            self._log.warn(
                "{peer} failed to log in as {user!r} by {mechanism}: {error}",
                peer=self._candidate.peer,
                user=error.user,
                mechanism=self._server.mechanism,
                error=error,
            )
        except Exception:
            self._log.failure(
                "{peer} could not be authenticated: the credentials checker raised an error",
                peer=self._candidate.peer,
            )
        self._candidate.authenticationFailed()
        left = self._limits().failureDelay - self._watch.seconds
        await deferLater(self._clock, max(left, 0))
        if self._server.failures >= self._limits().loginTries:
            failed = AuthenticationFailed(f"failed to log in {self._server.failures} times")
            self._candidate.endSoon(failed)
        raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)


class _Stopwatch:
    """
    Measures the time from a client's message, or from its turn in the queue, to the reply, so that
    all failures can take the same time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """
        Start measuring.
        """
        self._begun = self._clock.seconds()

    @property
    def seconds(self) -> float:
        """
        Return the seconds since the start.
        """
        return self._clock.seconds() - self._begun


class _LoginGate:
    """
    The L{kaproto.security.mechanism.Gate} of one attempt to log in, which waits in a queue.
    """

    def __init__(self, candidate: Candidate, queue: ILoginQueue, watch: _Stopwatch) -> None:
        """
        @param watch: is restarted when the attempt has passed the queue.
        """
        self._candidate = candidate
        self._queue = queue
        self._watch = watch
        self._waiting: Deferred[ITurn] | None = None
        self._turn: ITurn | OpenGate = OpenGate()

    async def enter(self, user: str, /) -> bool:
        """
        Wait for our turn.  The client's deadline is suspended while it waits.
        """
        entering = self._queue.enter(self._candidate.peer.network, user)
        if entering.called:
            turn = self._turn = await entering
            return turn.known
        self._waiting = entering
        left = self._candidate.limits.hold()
        try:
            turn = self._turn = await entering
        finally:
            self._waiting = None
            self._candidate.limits.resume(left)
            self._watch.start()
        return turn.known

    def answered(self) -> None:
        """
        Let the next login be checked.
        """
        self._turn.answered()

    def succeeded(self) -> None:
        """
        Remember this user at this network.
        """
        self._turn.succeeded()

    def failed(self) -> None:
        """
        Count this attempt as a failure, or leave the queue.
        """
        if self._waiting is not None:
            self._waiting.cancel()
        self._turn.failed()

    def forget(self) -> None:
        """
        Count nothing.
        """
        self._turn.forget()
