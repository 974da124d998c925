"""
SASL (RFC 4422) for a server, without I/O.  A L{twisted.cred.portal.Portal} checks the credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError

from kaproto.security.mechanism import Gate, MakeMechanism, Mechanism, OpenGate, SASLFailed
from kaproto.wire.sasl import SASLResult

__all__ = ["SASLServer"]

_IMPATIENT: Final = "it sent another message before the reply to the previous one"


class _Exchange(NamedTuple):
    """
    One attempt to log in.
    """

    mechanism: Mechanism
    gate: Gate


class _State(Enum):
    IDLE = "before init"
    READY = "after init"
    RUNNING = "in an exchange"
    WAITING = "being checked"
    COMPLETE = "complete"
    GONE = "after its end"


class SASLServer:
    """
    Authenticates one client.  After a failure the client may begin again.

    @ivar user: the client's name, once it is authenticated.
    @ivar failures: how many attempts have failed.
    @ivar mechanism: the name of the mechanism used last.
    """

    def __init__(
        self,
        portal: Portal,
        mechanisms: dict[str, MakeMechanism],
        gate: Callable[[], Gate] = OpenGate,
    ) -> None:
        """
        @param mechanisms: the mechanisms that the client may use, see
            L{kaproto.security.admission.mechanismsFor}.
        @param gate: makes the gate for one attempt.
        """
        self.user: str | None = None
        self.failures = 0
        self.mechanism: str | None = None
        self._portal = portal
        self._mechanisms = mechanisms
        self._makeGate = gate
        self._exchange: _Exchange | None = None
        self._state = _State.IDLE

    def init(self) -> list[str]:
        """
        List the mechanisms, for the client's C{AUTH_SASL_INIT}.

        @return: their names.
        @raise SASLFailed: if the client has asked before.
        """
        self._expect(_State.IDLE)
        self._state = _State.READY
        return list(self._mechanisms)

    async def start(self, mechanism: str, data: bytes | None) -> SASLResult:
        """
        Handle the client's first message.

        @raise SASLFailed: if the client is not authenticated.
        """
        self._expect(_State.READY)
        make = self._mechanisms.get(mechanism)
        if make is None:
            raise self._failed(SASLFailed(f"there is no mechanism {mechanism[:64]!r}"))
        self.mechanism = mechanism
        gate = self._makeGate()
        self._exchange = _Exchange(make(self._portal, gate.enter), gate)
        return await self._respond(self._exchange, data)

    async def step(self, data: bytes | None) -> SASLResult:
        """
        Handle the client's next message.

        @raise SASLFailed: if the client is not authenticated.
        """
        self._expect(_State.RUNNING)
        assert self._exchange is not None, "an exchange is under way"
        return await self._respond(self._exchange, data)

    def abandon(self) -> None:
        """
        The client has disconnected.
        """
        self._state = _State.GONE
        self._drop()

    def _drop(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.mechanism.abandon()
            exchange.gate.failed()

    async def _respond(self, exchange: _Exchange, data: bytes | None) -> SASLResult:
        # While the mechanism waits, another message of the client, or the end of its connection,
        # may drop this exchange.  Then self._exchange is no longer this one.
        self._state = _State.WAITING
        try:
            answer = await exchange.mechanism.respond(data)
        except BaseException as error:
            if not isinstance(error, SASLFailed | CancelledError):
                exchange.gate.forget()
            if self._exchange is exchange:
                self._failed(SASLFailed(str(error)))
            elif isinstance(error, CancelledError) and self._state is not _State.GONE:
                raise SASLFailed(_IMPATIENT) from None
            raise
        if self._exchange is not exchange:
            raise SASLFailed(_IMPATIENT)
        if answer.user is None:
            self._state = _State.RUNNING
            exchange.gate.answered()
            return SASLResult(complete=False, data=answer.data)
        exchange.gate.succeeded()
        self._state = _State.COMPLETE
        self._exchange = None
        self.user = answer.user
        return SASLResult(complete=True, data=answer.data)

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise self._failed(SASLFailed(f"out of order: {self._state.value}"))

    def _failed(self, error: SASLFailed) -> SASLFailed:
        """
        Count a failed attempt, and drop its exchange.

        @return: the same error, to be raised.
        """
        self.failures += 1
        self._drop()
        if self._state not in (_State.COMPLETE, _State.GONE):
            self._state = _State.IDLE
        return error
