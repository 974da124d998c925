"""
SASL (RFC 4422) for a server, without I/O.  A L{twisted.cred.portal.Portal} decides.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Final, NamedTuple, Protocol

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError
from zope.interface import Attribute, Interface, implementer

from kaproto.errors import KaprotoError
from kaproto.security.saslprep import prepareName, preparePassword
from kaproto.wire.sasl import SASLResult

__all__ = [
    "WRONG",
    "Admit",
    "Answer",
    "Gate",
    "IUser",
    "MakeMechanism",
    "Mechanism",
    "OpenGate",
    "Plain",
    "Realm",
    "SASLFailed",
    "SASLServer",
    "User",
    "makePortal",
]

WRONG: Final = "wrong user name or password"
"""
What is logged of both; nothing tells them apart.
"""


class SASLFailed(KaprotoError):
    """
    A client was not authenticated.  The message is for the log, not for the client, which is not
    told what was wrong.

    @ivar user: the name it gave, if it got that far.
    """

    def __init__(self, message: str, user: str | None = None) -> None:
        super().__init__(message)
        self.user = user


class IUser(Interface):
    """
    The avatar that a portal must have for a user.
    """

    name: str = Attribute("The name that policies match and libvirt shows.")


@implementer(IUser)
@attrs.frozen
class User:
    """
    A user who has logged in.
    """

    name: str


@implementer(IRealm)
class Realm:
    """
    A realm that accepts every user the checkers authenticate.
    """

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], User, Callable[[], None]]:
        """
        @return: a L{User}.
        @raise NotImplementedError: for anonymous clients, and for other interfaces than L{IUser}.
        """
        if IUser not in interfaces or not isinstance(avatarId, bytes):
            raise NotImplementedError("kaproto's realm has only users with a name")
        return IUser, User(avatarId.decode("utf-8", "surrogateescape")), _logout


def _logout() -> None:
    """
    A user holds nothing that has to be released.
    """


def makePortal(checkers: Iterable[ICredentialsChecker]) -> Portal:
    """
    @raise ValueError: if two checkers are for the same credentials, since cred would ask only the
        last.
    """
    portal = Portal(Realm())
    for checker in checkers:
        for interface in checker.credentialInterfaces:
            if interface in portal.checkers:
                raise ValueError(
                    f"two checkers for {interface.__name__}; only one of them would be asked"
                )
        portal.registerChecker(checker)
    return portal


class Answer(NamedTuple):
    """
    What a mechanism replies to the client.

    @ivar data: what to send; C{None} for nothing.
    @ivar user: the client's name, once it is authenticated.
    """

    data: bytes | None
    user: str | None


class Mechanism(Protocol):
    """
    One attempt to log in, by one mechanism.
    """

    async def respond(self, data: bytes | None) -> Answer:
        """
        The client has sent something.

        @raise SASLFailed: if the client is not who it says.
        """

    def abandon(self) -> None:
        """
        The client will not send any more.
        """


class Gate(Protocol):
    """
    Decides when the password of one login may be checked, and learns what came of it.  Of the last
    three one is called at the end, and perhaps L{failed} after that.
    """

    async def enter(self, user: str, /) -> None:
        """
        Wait until the password may be checked.
        """

    def answered(self) -> None:
        """
        The client was answered, and the login goes on.
        """

    def succeeded(self) -> None:
        """
        The client is authenticated.
        """

    def failed(self) -> None:
        """
        The client is not who it says, or is gone.
        """

    def forget(self) -> None:
        """
        A checker is broken.
        """


class OpenGate:
    """
    A L{Gate} at which nobody waits.
    """

    async def enter(self, user: str, /) -> None:
        """
        Do not wait.
        """

    def answered(self) -> None:
        """
        Nobody waits for this.
        """

    succeeded = failed = forget = answered


Admit = Callable[[str], Awaitable[None]]
"""
L{Gate.enter}, called with a user name before the portal is asked about that user.
"""

MakeMechanism = Callable[[Portal, Admit], Mechanism]


@implementer(IUsernamePassword)
class _Password:
    """
    A user name and a password, whose representation does not show the password.
    """

    __slots__ = ("password", "username")

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self.password = password

    def checkPassword(self, password: bytes) -> bool:
        """
        @return: whether the client gave this password.
        """
        return hmac.compare_digest(self.password, password)


class Plain:
    """
    The mechanism PLAIN (RFC 4616).  The client sends its password as it is, so this is only for
    connections that nobody can listen to.
    """

    def __init__(self, portal: Portal, admit: Admit) -> None:
        self._portal = portal
        self._admit = admit

    async def respond(self, data: bytes | None) -> Answer:
        """
        Check the one message of this mechanism, C{IDENTITY NUL NAME NUL PASSWORD}.

        @raise SASLFailed: if the client is not who it says.
        """
        if data is None:
            return Answer(b"", None)
        parts = data.split(b"\0", _PLAIN_PARTS)
        if len(parts) != _PLAIN_PARTS:
            raise SASLFailed("malformed message")
        identity, username, password = parts
        try:
            name = prepareName(username)
        except ValueError as error:
            raise SASLFailed(f"this cannot be a user name: {error}") from None
        if identity not in (b"", username):
            raise SASLFailed("asks to act as another user", name)
        try:
            prepared = preparePassword(password)
        except ValueError as error:
            raise SASLFailed(f"this cannot be a password: {error}", name) from None
        await self._admit(name)
        credentials = _Password(name.encode(), prepared.encode())
        # An error raised by awaiting is in a cycle with its traceback, which would keep the
        # connection in memory until the garbage collector runs.
        login = self._portal.login(credentials, None, IUser)
        result = await login.addErrback(lambda failure: failure.trap(LoginFailed) and None)
        if result is None:
            raise SASLFailed(WRONG, name)
        return Answer(None, str(IUser(result[1]).name))

    def abandon(self) -> None:
        """
        There is nothing to release.
        """


_PLAIN_PARTS: Final = 3


_IMPATIENT: Final = "it sent another message before it was answered"


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
    @ivar failures: how often it failed.
    @ivar mechanism: the name of the mechanism that it uses, or used last.
    """

    def __init__(
        self,
        portal: Portal,
        mechanisms: dict[str, MakeMechanism],
        gate: Callable[[], Gate] = OpenGate,
    ) -> None:
        """
        @param mechanisms: what it may use, see L{kaproto.security.admission.mechanismsFor}.
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
        The client asks which mechanisms there are.

        @return: their names.
        @raise SASLFailed: if it has asked before.
        """
        self._expect(_State.IDLE)
        self._state = _State.READY
        return list(self._mechanisms)

    async def start(self, mechanism: str, data: bytes | None) -> SASLResult:
        """
        The client begins.

        @raise SASLFailed: if it is not authenticated.
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
        The client goes on.

        @raise SASLFailed: if it is not authenticated.
        """
        self._expect(_State.RUNNING)
        assert self._exchange is not None, "an exchange is running"
        return await self._respond(self._exchange, data)

    def abandon(self) -> None:
        """
        The client is gone.
        """
        self._state = _State.GONE
        self._drop()

    def _drop(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.mechanism.abandon()
            exchange.gate.failed()

    async def _respond(self, exchange: _Exchange, data: bytes | None) -> SASLResult:
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
        self.failures += 1
        self._drop()
        if self._state not in (_State.COMPLETE, _State.GONE):
            self._state = _State.IDLE
        return error
