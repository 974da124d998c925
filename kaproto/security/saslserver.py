"""
SASL as a server, without I/O: mechanisms that end at a L{twisted.cred.portal.Portal}.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, NamedTuple, Protocol

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import IRealm, Portal
from zope.interface import Attribute, Interface, implementer

from kaproto.errors import KaprotoError
from kaproto.wire.sasl import SASLResult

__all__ = [
    "Answer",
    "IUser",
    "Mechanism",
    "Plain",
    "Realm",
    "SASLFailed",
    "SASLServer",
    "User",
    "login",
    "makePortal",
]


class SASLFailed(KaprotoError):
    """
    A client could not be let in.  The message is for the log and never for the client, who is
    not to learn what was wrong.

    @ivar user: the name that it gave, as far as it got.
    """

    def __init__(self, message: str, user: str | None = None) -> None:
        super().__init__(message)
        self.user = user


class IUser(Interface):
    """
    What a portal has to have for those whom it lets in.
    """

    name: str = Attribute("The name that policies see, and libvirt shows.")


@implementer(IUser)
@attrs.frozen
class User:
    """
    Somebody who was let in.
    """

    name: str


@implementer(IRealm)
class Realm:
    """
    Takes whoever the checkers know for what they say.
    """

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], User, Callable[[], None]]:
        """
        See L{IRealm}.

        @raise NotImplementedError: when it is not a user that is asked for.
        """
        if IUser not in interfaces or not isinstance(avatarId, bytes):
            raise NotImplementedError("kaproto has nothing but users")
        return IUser, User(_text(avatarId)), _leave


def _leave() -> None:
    """
    There is nothing that a user leaves behind.
    """


def makePortal(checkers: Iterable[ICredentialsChecker]) -> Portal:
    """
    @raise ValueError: when two checkers are for the same credentials, of which cred would ask
        only the last.
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


async def login(portal: Portal, credentials: object, user: str) -> str:
    """
    @param user: the name that the client gave.
    @return: the name of the user that the portal knows.
    @raise SASLFailed: when it does not let the client in.
    """
    try:
        _interface, avatar, _logout = await portal.login(credentials, None, IUser)  # type: ignore[arg-type]
    except LoginFailed as error:
        raise SASLFailed("no such user or another password", user) from error
    return str(IUser(avatar).name)


class Answer(NamedTuple):
    """
    What a mechanism says to the client.

    @ivar data: what to send, C{None} for nothing.
    @ivar user: who the client is, once that is certain.
    """

    data: bytes | None
    user: str | None


class Mechanism(Protocol):
    """
    One try at authentication, by one mechanism.
    """

    async def respond(self, data: bytes | None) -> Answer:
        """
        The client has sent something.

        @raise SASLFailed: when it is not let in.
        """

    def abandon(self) -> None:
        """
        The client will not send any more.
        """


@implementer(IUsernamePassword)
class _Password:
    """
    A name and a password, of which the second is never shown.
    """

    __slots__ = ("password", "username")

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self.password = password

    def checkPassword(self, password: bytes) -> bool:
        """
        See L{IUsernamePassword}.
        """
        return hmac.compare_digest(self.password, password)


class Plain:
    """
    The mechanism PLAIN (RFC 4616): the password as it is, so only where nobody can listen.
    """

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    async def respond(self, data: bytes | None) -> Answer:
        """
        See L{Mechanism}.
        """
        if data is None:
            return Answer(b"", None)
        parts = data.split(b"\0")
        if len(parts) != _PLAIN_PARTS:
            raise SASLFailed("malformed message")
        identity, username, password = parts
        name = _text(username)
        if not username or not password:
            raise SASLFailed("no name or no password", name)
        if identity not in (b"", username):
            raise SASLFailed(f"wants to act as {_text(identity)!r}", name)
        return Answer(None, await login(self._portal, _Password(username, password), name))

    def abandon(self) -> None:
        """
        There is nothing to let go of.
        """


_PLAIN_PARTS: Final = 3


class _State(Enum):
    IDLE = "before init"
    READY = "after init"
    RUNNING = "in an exchange"
    WAITING = "being checked"
    COMPLETE = "complete"


class SASLServer:
    """
    One client's way of being let in.  After any failure the client may begin anew.

    @ivar user: who it is, once it is let in.
    @ivar failures: how often it was not let in.
    @ivar mechanism: the name of the mechanism that it tries, or tried last.
    """

    def __init__(
        self, portal: Portal, mechanisms: dict[str, Callable[[Portal], Mechanism]]
    ) -> None:
        """
        @param mechanisms: what it may use, see L{kaproto.security.admission.mechanismsFor}.
        """
        self.user: str | None = None
        self.failures = 0
        self.mechanism: str | None = None
        self._portal = portal
        self._mechanisms = mechanisms
        self._exchange: Mechanism | None = None
        self._state = _State.IDLE

    def init(self) -> list[str]:
        """
        The client asks what there is.

        @return: the names of the mechanisms.
        @raise SASLFailed: when it has asked already.
        """
        self._expect(_State.IDLE)
        self._state = _State.READY
        return list(self._mechanisms)

    async def start(self, mechanism: str, data: bytes | None) -> SASLResult:
        """
        The client begins.

        @raise SASLFailed: when it is not let in.
        """
        self._expect(_State.READY)
        make = self._mechanisms.get(mechanism)
        if make is None:
            raise self._failed(SASLFailed(f"there is no mechanism {mechanism[:64]!r}"))
        self.mechanism = mechanism
        self._exchange = make(self._portal)
        return await self._respond(self._exchange, data)

    async def step(self, data: bytes | None) -> SASLResult:
        """
        The client goes on.

        @raise SASLFailed: when it is not let in.
        """
        self._expect(_State.RUNNING)
        assert self._exchange is not None, "an exchange is running"
        return await self._respond(self._exchange, data)

    def abandon(self) -> None:
        """
        The client is gone.
        """
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    async def _respond(self, exchange: Mechanism, data: bytes | None) -> SASLResult:
        self._state = _State.WAITING
        try:
            answer = await exchange.respond(data)
        except BaseException as error:
            if self._exchange is exchange:
                self._failed(SASLFailed(str(error)))
            raise
        if self._exchange is not exchange:
            raise SASLFailed("it did not wait for an answer")
        if answer.user is None:
            self._state = _State.RUNNING
            return SASLResult(complete=False, data=answer.data)
        self._state = _State.COMPLETE
        self._exchange = None
        self.user = answer.user
        return SASLResult(complete=True, data=answer.data)

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise self._failed(SASLFailed(f"out of order: {self._state.value}"))

    def _failed(self, error: SASLFailed) -> SASLFailed:
        self.failures += 1
        self.abandon()
        if self._state is not _State.COMPLETE:
            self._state = _State.IDLE
        return error


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
