"""
The extension points, as zope Interfaces: policies, backends and programs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import attrs
from zope.interface import Attribute, Interface

from kaproto.errors import RemoteError
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer

__all__ = [
    "ADMITTED",
    "Admission",
    "IBackend",
    "IKeepAlivePolicy",
    "IProgram",
    "IRelaySession",
    "ISession",
    "OpenRequest",
    "Peer",
    "Refused",
]


@attrs.frozen
class Admission:
    """
    The peer may open.

    @ivar warning: a text to log and count, for example that a stricter policy would refuse the
        peer; C{None} for none.
    @ivar rule: the policy's rule that decided, for operators.
    @ivar readOnly: whether to open read-only, even if the peer does not ask for that.
    """

    warning: str | None = None
    rule: str | None = None
    readOnly: bool = False


@attrs.frozen
class Refused:
    """
    The peer may not open.

    @ivar message: the error for the client: the reason, and a remedy.
    @ivar rule: the policy's rule that decided, for operators.
    """

    message: str
    rule: str | None = None


ADMITTED = Admission()
"""
The peer may open, without a warning.
"""


class IKeepAlivePolicy(Interface):
    """
    Decides for each peer whether to ping it, and whether it may open.

    C{twistd kaserver --mode=NAME:ARGUMENT} finds policies in the modules of C{twisted/plugins/}:
    instances that also provide L{twisted.plugin.IPlugin}.  L{kaproto.policies.Policy} is a base
    class that implements the whole interface with defaults.
    """

    name: str = Attribute("The name for C{--mode}.")

    description: str = Attribute("One line of help for administrators.")

    argumentFormat: str = Attribute(
        "The argument after the name and a colon, for C{--help-policies}; empty if there is none."
    )

    def configured(argument: str | None, keepAlive: KeepAlive) -> IKeepAlivePolicy:
        """
        Configure the policy.

        @param argument: the text after the name and a colon; C{None} without a colon.
        @param keepAlive: the interval and count from the command line.
        @return: the configured policy, which may be the same object.
        @raise ValueError: when the argument cannot be used.  The user sees the message.
        """

    def advertises(peer: Peer) -> bool:
        """
        @return: whether to answer 1 to the peer's feature check for keepalive.  After the answer 0
            the peer is not pinged.
        """

    def keepAlive(peer: Peer) -> KeepAlive | None:
        """
        Called after L{advertises} has returned C{True}, and for every peer when it is open.

        @return: the interval and count for pinging the peer; C{None} for no pings.  A peer that did
            not ask for keepalive is never pinged; over TCP, the kernel watches it with this
            interval and count.
        """

    def admit(peer: Peer) -> Admission | Refused:
        """
        Called when the peer opens.  C{peer.asked} says whether it has asked for keepalive.

        @return: whether it may open.
        """


@attrs.frozen
class OpenRequest:
    """
    The arguments of C{CONNECT_OPEN}.

    @ivar name: the name to open, a URI without transport and host; C{""} for the default; C{None}
        if the client sent no name.
    @ivar flags: bit 0 asks for a read-only connection.  Servers ignore the other bits.
    """

    name: str | None
    flags: int

    @property
    def readOnly(self) -> bool:
        """
        Whether the client asks for a read-only connection (C{VIR_CONNECT_RO}).
        """
        return bool(self.flags & _READ_ONLY)

    def forReading(self) -> OpenRequest:
        """
        @return: the same request for a read-only connection.
        """
        return attrs.evolve(self, flags=self.flags | _READ_ONLY)


_READ_ONLY = 1


class ISession(Interface):
    """
    Answers one open connection's calls to the remote program.
    """

    idle: bool = Attribute(
        "Whether nothing is under way but calls given to C{callReceived}, so that the server may "
        "close the connection when these are answered."
    )

    def opened(connection: Any) -> None:
        """
        Called once, after the reply to C{CONNECT_OPEN} was sent.

        @param connection: the L{kaproto.server.KeepAliveServerProtocol}.
        """

    def callReceived(procedure: int, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        Answer a call to a procedure that the backend L{knows<IBackend.knows>}.

        @return: the result in XDR, now or later.
        @raise kaproto.errors.RemoteError: to answer with an error, now or later.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """

    def closed(reason: Exception) -> None:
        """
        Called once, when the connection has ended.

        @param reason: why it ended.
        """


class IRelaySession(ISession):
    """
    A session that relays calls to another server.  The connection does not see these calls, so
    only the session can count and fail them.
    """

    callsUnderWay: int = Attribute("How many calls are not answered yet, as far as is known.")

    upstreamState: str = Attribute(
        "The state of the client's connection to the server behind it, for operators."
    )

    def failCalls(error: RemoteError) -> None:
        """
        Answer all calls that are not answered yet, because the connection is about to close.
        """


class IBackend(Interface):
    """
    Opens sessions: on an embedded host, or on a libvirtd behind a gateway.
    """

    features: frozenset[int] = Attribute(
        "The L{kaproto.wire.programs.Feature}s of its sessions, such as C{REMOTE_EVENT_CALLBACK}. "
        "The server itself has C{PROGRAM_KEEPALIVE} and C{REMOTE_CLOSE_CALLBACK}."
    )

    def knows(procedure: int) -> bool:
        """
        @return: whether sessions answer this procedure of the remote program.  A client that calls
            a known procedure before it has opened gets a different error than for an unknown one.
        """

    def open(peer: Peer, request: OpenRequest) -> ISession | Awaitable[ISession]:
        """
        Open a session for a peer that the policy has admitted.

        @return: the session, now or later.
        @raise kaproto.errors.RemoteError: when it cannot be opened, now or later.  The client
            may try again.
        """


class IProgram(Interface):
    """
    An application's own RPC program, served beside the remote program.
    L{kaproto.program.Program} is a base class.
    """

    number: int = Attribute("The program's number, unique on the server.")

    version: int = Attribute("The program's version.")

    def knows(procedure: int) -> bool:
        """
        @return: whether the program answers this procedure.
        """

    def callReceived(connection: Any, procedure: int, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        Answer a call of an open connection to a procedure that the program L{knows}.

        @param connection: the L{kaproto.server.KeepAliveServerProtocol}.
        @return: the result in XDR, now or later.
        @raise kaproto.errors.RemoteError: to answer with an error, now or later.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """
