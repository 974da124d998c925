"""
Interfaces of a server's SASL mechanisms, and of the gate that a login passes before its password is
checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

from twisted.cred.portal import Portal
from zope.interface import Attribute, Interface

from kaproto.errors import KaprotoError

__all__ = [
    "WRONG",
    "Admit",
    "Answer",
    "Gate",
    "IKnown",
    "MakeMechanism",
    "Mechanism",
    "OpenGate",
    "SASLFailed",
]

WRONG: Final = "wrong user name or password"
"""
The log says the same in both cases, so that it does not reveal which names exist.
"""


class SASLFailed(KaprotoError):
    """
    A client was not authenticated.  The message is for the log; the client is not told the reason.

    @ivar user: the user name given; C{None} if none was.
    """

    def __init__(self, message: str, user: str | None = None) -> None:
        super().__init__(message)
        self.user = user


class Answer(NamedTuple):
    """
    A mechanism's reply to the client.

    @ivar data: what to send; C{None} for nothing.
    @ivar user: the client's name, once it is authenticated.
    """

    data: bytes | None
    user: str | None


class IKnown(Interface):
    """
    Credentials that know whether their user has recently logged in from the same network.
    """

    known: bool = Attribute(
        "Whether it has, so that it need not wait while the passwords of others are hashed."
    )


class Mechanism(Protocol):
    """
    One attempt to log in, by one mechanism.
    """

    async def respond(self, data: bytes | None) -> Answer:
        """
        Handle a message of the client.

        @raise SASLFailed: if the client is not authenticated.
        """

    def abandon(self) -> None:
        """
        End the attempt: the client will send no more messages.
        """


class Gate(Protocol):
    """
    Decides when the password of one login may be checked.  One of L{succeeded}, L{failed} and
    L{forget} is called at the end; L{failed} may be called once more after that.
    """

    async def enter(self, user: str, /) -> bool:
        """
        Wait until the password may be checked.

        @return: whether the user is known, see L{IKnown}.
        """

    def answered(self) -> None:
        """
        The server has replied, and the login continues.
        """

    def succeeded(self) -> None:
        """
        The client is authenticated.
        """

    def failed(self) -> None:
        """
        The login failed, or the client disconnected.
        """

    def forget(self) -> None:
        """
        The credentials checker raised an error.  The login counts neither as a success nor as a
        failure.
        """


class OpenGate:
    """
    A L{Gate} at which no login waits.
    """

    async def enter(self, user: str, /) -> bool:
        """
        Do not wait.
        """
        return False

    def answered(self) -> None:
        """
        Do nothing, since no login waits.
        """

    succeeded = failed = forget = answered


Admit = Callable[[str], Awaitable[bool]]
"""
L{Gate.enter}, called with a user name before the portal is asked about that user.
"""

MakeMechanism = Callable[[Portal, Admit], Mechanism]
"""
Makes a L{Mechanism} for one attempt to log in.
"""
