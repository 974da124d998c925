"""
The extension points: what can be plugged into kaproto, as zope Interfaces.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import attrs
from zope.interface import Attribute, Interface

from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer

__all__ = [
    "ADMITTED",
    "Admission",
    "IBackend",
    "IKeepAlivePolicy",
    "IProgram",
    "ISession",
    "OpenRequest",
    "Peer",
    "Refused",
]


@attrs.frozen
class Admission:
    """
    The peer may open.

    @ivar warning: something to log and count about it, such as that a stricter policy would have
        refused it.
    @ivar rule: which of the policy's rules decided, for operators to read.
    @ivar readOnly: whether to open read-only, even if the peer does not ask for that.
    """

    warning: str | None = None
    rule: str | None = None
    readOnly: bool = False


@attrs.frozen
class Refused:
    """
    The peer may not open.

    @ivar message: what to tell it: why, and what to do about it.
    @ivar rule: which of the policy's rules decided, for operators to read.
    """

    message: str
    rule: str | None = None


ADMITTED = Admission()
"""
The peer may open, and there is no more to say about it.
"""


class IKeepAlivePolicy(Interface):
    """
    How far keepalive goes with each peer.

    Make an instance that also provides L{twisted.plugin.IPlugin} available from a module in
    C{twisted/plugins/}, and C{twistd kaserver --mode=NAME:ARGUMENT} finds it.
    L{kaproto.policies.Policy} is a base class with everything filled in.
    """

    name: str = Attribute("What selects it on the command line.")

    description: str = Attribute("One line of help for administrators.")

    argumentFormat: str = Attribute(
        "What may follow the name and a colon; empty for a policy that takes no argument."
    )

    def configured(argument: str | None, keepAlive: KeepAlive) -> IKeepAlivePolicy:
        """
        Make the policy that will be used.

        @param argument: what followed the name and a colon, C{None} when nothing did.
        @param keepAlive: the interval and count from the command line.
        @return: a policy; it may be the same object.
        @raise ValueError: when the argument is no good; the message is shown to the user.
        """

    def advertises(peer: Peer) -> bool:
        """
        @return: whether to answer 1 when the peer asks for the keepalive feature.  A peer that
            is answered 0 must not be pinged.
        """

    def keepAlive(peer: Peer) -> KeepAlive | None:
        """
        Called when a peer has asked for the keepalive feature and been answered 1.

        @return: at which interval and count to ping it, or C{None} not to.
        """

    def admit(peer: Peer) -> Admission | Refused:
        """
        Called when a peer wants to open.  C{peer.asked} tells whether it asked for keepalive.

        @return: whether it may.
        """


@attrs.frozen
class OpenRequest:
    """
    The arguments of C{CONNECT_OPEN}.

    @ivar name: what to open, as a URI without transport and host, C{""} to be given a default,
        C{None} where the client sent no name at all.
    @ivar flags: bit 0 asks for a read-only connection; clients set others for their own use.
    """

    name: str | None
    flags: int

    @property
    def readOnly(self) -> bool:
        """
        Whether the connection must not change anything (C{VIR_CONNECT_RO}).
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
    What answers one connection's calls to the remote program once it is open.
    """

    idle: bool = Attribute(
        "Whether it is doing nothing for the client but answering calls that it was given through "
        "C{callReceived}."
    )

    def opened(connection: Any) -> None:
        """
        The client has been told that the connection is open.

        @param connection: the L{kaproto.server.KeepAliveServerProtocol}.
        """

    def callReceived(procedure: int, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        A call to one of the procedures that the backend L{knows<IBackend.knows>}.

        @return: the result in XDR, now or later.
        @raise kaproto.errors.RemoteError: to answer with an error, now or later.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """

    def closed(reason: Exception) -> None:
        """
        The connection is gone.
        """


class IBackend(Interface):
    """
    What a connection opens: an embedded host, or something behind a gateway.
    """

    features: frozenset[int] = Attribute(
        "The L{kaproto.wire.programs.Feature}s that its sessions have and that the server does "
        "not answer for itself, such as C{REMOTE_EVENT_CALLBACK}."
    )

    def knows(procedure: int) -> bool:
        """
        @return: whether the sessions have this procedure, which can be asked for before one is
            open.
        """

    def open(peer: Peer, request: OpenRequest) -> ISession | Awaitable[ISession]:
        """
        Called when the policy has admitted the peer.

        @raise kaproto.errors.RemoteError: when it cannot be opened, now or later.  The client
            may try again.
        """


class IProgram(Interface):
    """
    An RPC program of an application's own, served beside the remote program.
    """

    number: int = Attribute("The program's number, which no other program on the server has.")

    version: int = Attribute("The program's version.")

    def knows(procedure: int) -> bool:
        """
        @return: whether the program has this procedure.
        """

    def callReceived(connection: Any, procedure: int, payload: bytes) -> bytes | Awaitable[bytes]:
        """
        A call, from a connection that is open, to a procedure that the program L{knows}.

        @param connection: the L{kaproto.server.KeepAliveServerProtocol}.
        @return: the result in XDR, now or later.
        @raise kaproto.errors.RemoteError: to answer with an error, now or later.
        @raise kaproto.wire.xdr.XDRError: when the payload cannot be decoded.
        """
