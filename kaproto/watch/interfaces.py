"""
Interfaces of codecs.  A codec expresses keepalive in the messages of a protocol without keepalive.
"""

from __future__ import annotations

from enum import Enum

import attrs
from zope.interface import Attribute, Interface

from kaproto.watch.framing import Framing

__all__ = ["Control", "IControlMessages", "IHeartbeatCodec", "Kind"]


class Kind(Enum):
    """
    The kinds of control messages.
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

    @ivar kind: the purpose of the message.
    @ivar interval: with L{Kind.ASK} and L{Kind.ANSWER}, the shortest interval in seconds at which
        its sender agrees to be pinged.
    @ivar reason: with L{Kind.DECLINE}, the peer's reason, if it sends one.
    """

    kind: Kind
    interval: float = 0.0
    reason: str = ""


class IControlMessages(Interface):
    """
    Encodes control messages.
    """

    ping: bytes = Attribute("A ping.")

    pong: bytes = Attribute("The answer to a ping, always the same bytes.")

    def ask(interval: float) -> bytes:
        """
        @param interval: the shortest interval, in seconds, at which the client agrees to be pinged.
        @return: the message by which a client asks for keepalive and promises to answer pings;
            C{b""} if all peers of this protocol answer pings without being asked to.
        """

    def answer(interval: float) -> bytes:
        """
        @param interval: the shortest interval, in seconds, at which the server agrees to be pinged.
        @return: the message by which a server promises to answer pings, too.
        """

    def decline() -> bytes:
        """
        @return: the answer to a client that asked but will not be watched; C{b""} for no answer.
        """

    def refusal(reason: str, first: bytes) -> bytes:
        """
        @param reason: why a client that did not ask is refused.
        @param first: the first bytes from its application, C{b""} if there are none.
        @return: an error message of the protocol for the client; C{b""} if it has none.
        """


class IHeartbeatCodec(IControlMessages):
    """
    Finds control messages among the messages of one protocol.

    To offer a codec by its name, put an instance that also provides L{twisted.plugin.IPlugin} into
    a module of C{twisted/plugins/}.
    """

    name: str = Attribute("The name that selects the codec.")

    most: int = Attribute("The length of the longest control message's payload.")

    def framing() -> Framing:
        """
        @return: a new framing, for one direction of one connection.
        """

    def read(payload: bytes) -> Control | None:
        """
        @param payload: a message no longer than C{most}, without its frame.
        @return: the control message; C{None} if the message is the application's.
        """

    def mayBegin(data: bytes) -> bool:
        """
        @param data: the first bytes of a message that is not complete.
        @return: whether it may become a control message.  If not, the bytes are passed on at once.
        """
