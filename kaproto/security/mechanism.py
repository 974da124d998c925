"""
What a SASL mechanism of a server is, and what it asks before it checks a password.
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
What the log says of either: it does not tell which names there are.
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


class Answer(NamedTuple):
    """
    What a mechanism replies to the client.

    @ivar data: what to send; C{None} for nothing.
    @ivar user: the client's name, once it is authenticated.
    """

    data: bytes | None
    user: str | None


class IKnown(Interface):
    """
    Credentials that say whether their user has logged in from the same network lately.
    """

    known: bool = Attribute(
        "Whether it has, so that it must not wait while the passwords of others are hashed."
    )


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

    async def enter(self, user: str, /) -> bool:
        """
        Wait until the password may be checked.

        @return: whether the user is known, see L{IKnown}.
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

    async def enter(self, user: str, /) -> bool:
        """
        Do not wait.
        """
        return False

    def answered(self) -> None:
        """
        Nobody waits for this.
        """

    succeeded = failed = forget = answered


Admit = Callable[[str], Awaitable[bool]]
"""
L{Gate.enter}, called with a user name before the portal is asked about that user.
"""

MakeMechanism = Callable[[Portal, Admit], Mechanism]
