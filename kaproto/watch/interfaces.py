"""
Keepalive in the words of a protocol that was not made for it: control messages, and the codecs that
find them.
"""

from __future__ import annotations

from enum import Enum

import attrs
from zope.interface import Attribute, Interface

from kaproto.watch.framing import Framing

__all__ = ["Control", "IControlMessages", "IHeartbeatCodec", "Kind"]


class Kind(Enum):
    """
    What a control message is for.
    """

    ASK = "a client asks for keepalive, and answers pings"
    ANSWER = "the server answers pings, too"
    DECLINE = "the server does not offer keepalive"
    PING = "a request for a pong"
    PONG = "the answer to a ping"
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


class IControlMessages(Interface):
    """
    Messages about keepalive, as bytes on the wire.
    """

    ping: bytes = Attribute("A ping.")

    pong: bytes = Attribute("The answer to a ping, always the same bytes.")

    def ask(interval: float) -> bytes:
        """
        @param interval: the shortest at which the client agrees to be pinged, in seconds.
        @return: the message by which a client asks for keepalive and says that it answers pings;
            C{b""} if every peer of this protocol answers pings, so that none has to ask.
        """

    def answer(interval: float) -> bytes:
        """
        @param interval: the shortest at which the server agrees to be pinged, in seconds.
        @return: the message by which a server says that it answers pings, too.
        """

    def decline() -> bytes:
        """
        @return: the answer to a client that asked and is not watched; C{b""} if none is due.
        """

    def refusal(reason: str, first: bytes) -> bytes:
        """
        @param reason: why a client that did not ask is refused.
        @param first: the first bytes that came from its application, C{b""} if none did.
        @return: what to tell it in the protocol's own words; C{b""} if it has none.
        """


class IHeartbeatCodec(IControlMessages):
    """
    Finds control messages among the messages of one protocol.

    To offer a codec by its name, put an instance that also provides L{twisted.plugin.IPlugin} into
    a module of C{twisted/plugins/}.
    """

    name: str = Attribute("What selects it.")

    most: int = Attribute("The length of the longest control message's payload.")

    def framing() -> Framing:
        """
        @return: a new one, for one direction of one connection.
        """

    def read(payload: bytes) -> Control | None:
        """
        @param payload: a message no longer than C{most}, without its frame.
        @return: what it says about keepalive; C{None} if it is the application's.
        """

    def mayBegin(data: bytes) -> bool:
        """
        @param data: the first bytes of a message that is not complete.
        @return: whether it may become a control message.  If not, they are passed on at once.
        """
