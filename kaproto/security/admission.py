"""
Who may come in: what a server wants to see of a client before it answers it, and what it grants
those of whom it has not seen it yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import attrs
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kaproto.errors import AuthenticationFailed
from kaproto.limits import Limits
from kaproto.logbounds import BOUNDS
from kaproto.peer import Peer
from kaproto.security.dn import matchesGlob
from kaproto.security.saslserver import Mechanism, Plain, SASLFailed, SASLServer
from kaproto.security.tls import TLSIdentity
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ErrorCode
from kaproto.wire.sasl import SASLResult, packMechanisms, packResult, unpackStart, unpackStep

__all__ = [
    "REFUSED",
    "AccessControl",
    "Authentication",
    "Candidate",
    "PendingClients",
    "mechanismsFor",
]


REFUSED: Final = "authentication failed: authentication failed"
"""
All that a client is told, as by libvirtd.
"""


def mechanismsFor(portal: Portal, *, secure: bool) -> dict[str, Callable[[Portal], Mechanism]]:
    """
    @param secure: whether nobody can listen, so that a client may send its password as it is.
    @return: the mechanisms, by name, for which the portal's checkers have what is needed, the
        strongest first.
    """
    mechanisms: dict[str, Callable[[Portal], Mechanism]] = {}
    interfaces = portal.listCredentialsInterfaces()
    try:
        from kaproto.security.scram import IScramCredentials, ScramSHA256
    except ImportError:
        pass
    else:
        if IScramCredentials in interfaces or IUsernameHashedPassword in interfaces:
            mechanisms[ScramSHA256.name] = ScramSHA256
    if secure and IUsernamePassword in interfaces:
        mechanisms["PLAIN"] = Plain
    return mechanisms


@attrs.define
class AccessControl:
    """
    Who may connect.  L{kaproto.limits.Limits} has how many, and for how long.

    @ivar portal: whom clients have to log in with, by SASL; C{None} to have them not log in.
    @ivar tlsAllowedDNs: patterns for the names in the certificates of TLS clients, one of which
        has to fit, see L{matchesGlob}; C{None} to take every name.
    @ivar readOnly: whether all connections are read-only.
    """

    portal: Portal | None = None
    tlsAllowedDNs: Sequence[str] | None = None
    readOnly: bool = False

    def checkCertificate(self, identity: TLSIdentity) -> str | None:
        """
        @return: why a TLS client is not let in; C{None} when it is.
        """
        if identity.problem is not None or self.tlsAllowedDNs is None:
            return identity.problem
        if identity.dn is None:
            return "it has no certificate, and only certain names in certificates are let in"
        if any(matchesGlob(identity.dn, pattern) for pattern in self.tlsAllowedDNs):
            return None
        return f"the name in its certificate, {identity.dn!r}, is not one of those that are let in"


class Candidate(Protocol):
    """
    What L{Authentication} needs of a connection.

    @ivar peer: the client.
    """

    peer: Peer

    def authenticated(self, user: str) -> None:
        """
        The client has logged in.
        """

    def authenticationFailed(self) -> None:
        """
        The client has failed to log in.
        """

    def endSoon(self, reason: Exception) -> None:
        """
        Close the connection when the call that is being answered has been.
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
    ) -> None:
        """
        @param limits: has the limits of the server at the time.
        """
        self._candidate = candidate
        self._limits = limits
        self._clock = clock
        self._server = SASLServer(portal, mechanismsFor(portal, secure=candidate.peer.secure))

    async def init(self, payload: bytes) -> bytes:
        """
        Answer C{AUTH_SASL_INIT}.

        @raise kaproto.errors.RemoteError: when the client is not let in; so do the others.
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
        The client is gone.
        """
        self._server.abandon()

    async def _finish(self, going: Awaitable[SASLResult]) -> bytes:
        result = await going
        if result.complete:
            assert self._server.user is not None, "somebody has been let in"
            self._candidate.authenticated(self._server.user)
        return packResult(result)

    async def _answer(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        begun = self._clock.seconds()
        try:
            # Those who do not wait for their failures to be answered get no more tries for it.
            if self._server.failures < self._limits().loginTries:
                return await work()
        except CancelledError:
            raise
        except SASLFailed as error:
            self._log.warn(
                "{peer} was not let in as {user!r} by {mechanism}: {error}",
                peer=self._candidate.peer,
                user=error.user,
                mechanism=self._server.mechanism,
                error=error,
            )
        except Exception:
            self._log.failure(
                "{peer} could not be let in, because a checker failed", peer=self._candidate.peer
            )
        self._candidate.authenticationFailed()
        left = begun + self._limits().failureDelay - self._clock.seconds()
        await deferLater(self._clock, max(left, 0))
        if self._server.failures >= self._limits().loginTries:
            failed = AuthenticationFailed(f"failed to log in {self._server.failures} times")
            self._candidate.endSoon(failed)
        raise rpcError(REFUSED, ErrorCode.AUTH_FAILED)


_C = TypeVar("_C")


class PendingClients(Generic[_C]):
    """
    The connections that are not open yet, in the order in which they came.

    Whoever is over a limit is not left to wait, as that would leave everybody waiting: the one
    that has been at it longest goes.
    """

    def __init__(self) -> None:
        # A plain dict goes through all that was removed from it to find its first.
        self._unknown: OrderedDict[_C, None] = OrderedDict()
        self._unopened: OrderedDict[_C, None] = OrderedDict()

    def came(self, connection: _C, count: int, limits: Limits, *, unknown: bool) -> _C | None:
        """
        A client has connected.

        @param count: how many connections there are now.
        @param unknown: whether it has a handshake or a login before it.
        @return: which connection is to be closed for it: itself, when all others are open.
        """
        self._unopened[connection] = None
        oldest: _C | None = None
        if unknown:
            self._unknown[connection] = None
            if 0 < limits.maxAnonymousClients < len(self._unknown):
                oldest = next(iter(self._unknown))
        if oldest is None and 0 < limits.maxClients < count:
            oldest = next(iter(self._unopened))
        if oldest is not None and oldest is not connection:
            self.gone(oldest)
        return oldest

    def known(self, connection: _C) -> None:
        """
        A client has nothing more to show.
        """
        self._unknown.pop(connection, None)

    def opened(self, connection: _C) -> None:
        """
        A client has opened.
        """
        self._unopened.pop(connection, None)

    def gone(self, connection: _C) -> None:
        """
        A connection is gone.
        """
        self.known(connection)
        self.opened(connection)
