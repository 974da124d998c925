"""
How keepalive is said in a protocol that was not made for it, as a zope Interface.
"""

from __future__ import annotations

from enum import Enum

import attrs
from zope.interface import Attribute, Interface

from kaproto.watch.framing import Framing

__all__ = ["Control", "IHeartbeatCodec", "Kind"]


class Kind(Enum):
    """
    What a control message is for.
    """

    ASK = "the peer answers pings, and may be sent some"
    ANSWER = "the peer, which was asked, answers pings too"
    DECLINE = "the peer, which was asked, knows no keepalive"
    PING = "answer me"
    PONG = "the answer"
    END = "the peer's application sends no more"


@attrs.frozen
class Control:
    """
    A message about keepalive.

    @ivar kind: what it is for.
    @ivar interval: with L{Kind.ASK} and L{Kind.ANSWER}, the shortest interval in seconds at which
        its sender agrees to be pinged.
    @ivar reason: with L{Kind.DECLINE}, why, if the peer says.
    """

    kind: Kind
    interval: float = 0.0
    reason: str = ""


class IHeartbeatCodec(Interface):
    """
    The control messages of one protocol.

    To offer one by name make an instance that also provides L{twisted.plugin.IPlugin} available
    from a module in C{twisted/plugins/}.
    """

    name: str = Attribute("What selects it.")

    ping: bytes = Attribute("A ping, as bytes on the wire.")

    pong: bytes = Attribute("The answer to a ping, always the same bytes.")

    most: int = Attribute("The length of the longest control message's payload.")

    def framing() -> Framing:
        """
        @return: a new one, for one direction of one connection.
        """

    def read(payload: bytes) -> Control | None:
        """
        @param payload: a message no longer than C{most}, without what frames it.
        @return: what it says about keepalive; C{None} when it is the application's.
        """

    def mayBegin(data: bytes) -> bool:
        """
        @param data: the first bytes of a message that is not complete.
        @return: whether it may become a control message.  If not, they are passed on at once.
        """

    def ask(interval: float) -> bytes:
        """
        @param interval: the shortest at which the asking side agrees to be pinged, in seconds.
        @return: the message; C{b""} when every peer of this protocol answers pings, so that none
            has to ask.
        """

    def answer(interval: float) -> bytes:
        """
        @param interval: the shortest at which the answering side agrees to be pinged.
        @return: the message, which also says that it will answer pings.
        """

    def decline() -> bytes:
        """
        @return: the answer to a peer that asked and is not watched; C{b""} where none is due.
        """

    def refusal(reason: str, first: bytes) -> bytes:
        """
        @param reason: why a client that did not ask is refused.
        @param first: the first bytes that came from its application, C{b""} if none did.
        @return: what to tell it in the protocol's own words; C{b""} where it has none.
        """
