"""
Authenticates a client: the TLS handshake, its certificate, its login.
"""

from __future__ import annotations

from typing import Protocol, cast

from kaproto.errors import AuthenticationFailed
from kaproto.peer import Peer
from kaproto.rpc.closing import Closing
from kaproto.rpc.incoming import Gate, Incoming
from kaproto.rpc.negotiation import Event, Phase, ServerNegotiation
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.phaselimits import PhaseLimits
from kaproto.rpc.shared import SharedByServer
from kaproto.security.admission import AccessControl
from kaproto.security.proxy import terminatedTLSOf
from kaproto.security.serverauth import Authentication
from kaproto.security.tls import CONFIRMATION, TLSIdentity, TLSTransport, examine
from kaproto.transport import StreamTransport, tlsOf

__all__ = ["Entering", "Entrance"]


class Entering(Protocol):
    """
    The part of the client's connection, a L{kaproto.rpc.serverconnection.ServerConnection}, that an
    L{Entrance} uses.
    """

    transport: StreamTransport
    accessControl: AccessControl
    peer: Peer
    incoming: Incoming
    outgoing: Outgoing
    closing: Closing
    negotiation: ServerNegotiation
    limits: PhaseLimits
    server: SharedByServer

    def letIn(self) -> None:
        """
        The client is accepted, and has logged in if it has to.
        """


class Entrance:
    """
    Authenticates one client, which can do nothing else before that.

    @ivar peer: the client.
    @ivar limits: the limits of its phase.
    @ivar isAnonymous: whether the client has to complete a TLS handshake or to log in.
    @ivar authentication: its login, if it has to log in.
    """

    __slots__ = ("_client", "_terminated", "authentication", "isAnonymous", "limits", "peer")

    def __init__(self, client: Entering) -> None:
        server, portal = client.server, client.accessControl.portal
        self._client = client
        self.peer = peer = client.peer
        self.limits = client.limits
        self.isAnonymous = peer.transport == "tls" or portal is not None
        self._terminated = terminatedTLSOf(client.transport)
        if self._terminated is not None:
            peer.transport = "tls"
        self.authentication: Authentication | None = None
        if portal is not None:
            self.authentication = Authentication(
                self, portal, lambda: server.limits, server.clock, server.loginQueue
            )

    def begin(self) -> None:
        """
        Start with the first step that the client has to take: the TLS handshake, the login, or
        neither.
        """
        if self.peer.transport != "tls":
            self._accepted()
            return
        self._client.incoming.bypass = Gate(self._receivedUnchecked)
        self.limits.entered()
        if self._terminated is not None:
            identity, self.peer.commonName = self._terminated
            self._identified(identity)

    def _receivedUnchecked(self, data: bytes) -> None:
        """
        Bytes arrived from a TLS client whose certificate has not been checked, because a protocol
        between TLS and this one does not report the end of the handshake.  Since these bytes are
        decrypted, the handshake has ended: check the certificate before looking at them.
        """
        self.handshakeCompleted()
        self._client.incoming.feed(data)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake has completed: check the certificate, and tell the client that it is
        accepted.
        """
        client = self._client
        if client.closing.reason is None and client.negotiation.phase is Phase.CONNECTED:
            self._identified(examine(cast(TLSTransport, tlsOf(client.transport))))

    def _identified(self, identity: TLSIdentity) -> None:
        """
        The TLS handshake has completed, here or at a load balancer.
        """
        client = self._client
        self.peer.tlsDN = identity.dn
        self.peer.tlsFingerprint = identity.fingerprint
        problem = client.accessControl.checkCertificate(identity)
        if problem is not None:
            self.authenticationFailed()
            client.closing.disconnect(AuthenticationFailed(problem))
            return
        client.outgoing.write(CONFIRMATION, atOnce=True)
        client.incoming.bypass = None
        self._accepted()

    def _accepted(self) -> None:
        """
        The client's certificate is accepted, or the client needs none.
        """
        client = self._client
        client.negotiation.accepted(client.server.limits, login=self.authentication is not None)
        self.limits.entered()
        if client.negotiation.phase is not Phase.AUTHENTICATING:
            client.letIn()

    def authenticated(self, user: str) -> None:
        """
        The client has logged in.
        """
        self.authentication = None
        self.peer.user = user
        self.limits.advance(Event.AUTHENTICATED)
        self._client.letIn()

    def authenticationFailed(self) -> None:
        """
        The client has failed to authenticate.  It may have attempts left to log in.
        """
        self._client.server.journal.loginFailed(self.peer)

    def endSoon(self, reason: Exception) -> None:
        """
        Close the connection after the reply to the current call.
        """
        if self._client.closing.reason is None:
            self._client.negotiation.end(reason)

    def abandon(self) -> None:
        """
        The client is gone.
        """
        authentication, self.authentication = self.authentication, None
        if authentication is not None:
            authentication.abandon()
