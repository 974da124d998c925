"""
The protocol between a connection and its transport that speaks TLS, with bounds on what a peer can
make it compute and keep.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from kaproto.errors import PeerFlooded, RemoteProtocolError
from kaproto.security.handshake import Handshake

__all__ = ["HANDSHAKE_MAX", "UNASKED_MAX", "TLSFactory", "TLSLayer"]

HANDSHAKE_MAX: Final = 32768
"""
The most bytes that a peer may send until its handshake is complete.  Four certificates with RSA
keys of 4096 bits are 6 KiB.
"""

UNASKED_MAX: Final = 1000
"""
The most messages of TLS itself that OpenSSL may read and write after the handshake.  A key update
and its answer are two.  Peers renew their keys after millions of messages, if ever.
"""


class TLSLayer(BufferingTLSTransport):
    """
    Twisted's TLS protocol, with four differences.

      - Until the handshake is complete, L{HANDSHAKE_MAX} bytes are read, which bounds the number of
        certificates to parse.
      - OpenSSL answers some messages of the peer by itself, even if the peer reads nothing, and
        Twisted keeps these answers in memory.  After L{UNASKED_MAX} messages the connection is
        closed.
      - A protocol learns that the handshake has completed although other protocols wrap it.  One
        that waits for that before it trusts the peer can so be wrapped.
      - A connection that has ended is freed at once, and not when the garbage collector runs next:
        30 KiB for each.

    @ivar bytesReceived: bytes that have arrived from the transport.  Unlike the bytes that the
        wrapped protocol gets, they include parts of TLS records, which prove that the peer lives.
    """

    bytesReceived = 0

    def listener(self) -> object | None:
        """
        @return: the protocol to tell that the handshake has completed, which may be wrapped by
            others; C{None} if there is none.
        """
        above: object | None = self.wrappedProtocol
        while above is not None and not IHandshakeListener.providedBy(above):
            above = getattr(above, "wrappedProtocol", None)
        return above

    def dataReceived(self, data: bytes) -> None:
        """
        Decrypt bytes that have arrived from the transport.
        """
        self.bytesReceived += len(data)
        handshake: Handshake = self.getHandle()
        if handshake.completed:
            super().dataReceived(data)
        else:
            self._handshakeReceived(handshake, data)
        if handshake.unasked > UNASKED_MAX and self.connected:
            flooded = PeerFlooded(f"more than {UNASKED_MAX} TLS messages that are no data")
            self.failVerification(Failure(flooded))

    def _handshakeReceived(self, handshake: Handshake, data: bytes) -> None:
        room = HANDSHAKE_MAX - (self.bytesReceived - len(data))
        super().dataReceived(data[:room])
        if handshake.completed:
            # Bytes of the application may come with the end of the handshake.
            rest = data[room:]
            if rest:
                super().dataReceived(rest)
        elif len(data) > room:
            problem = RemoteProtocolError(
                f"more than {HANDSHAKE_MAX} bytes without completing the TLS handshake"
            )
            self.failVerification(Failure(problem))

    def _checkHandshakeStatus(self) -> None:
        # Twisted tells the protocol right above only.  Should Twisted rename this method, wrapped
        # protocols are not told, so they go on trusting nobody.
        super()._checkHandshakeStatus()
        handshake: Handshake | None = self.getHandle()
        if handshake is not None and handshake.completed:
            listener = self.listener()
            if listener is not None and listener is not self.wrappedProtocol:
                IHandshakeListener(listener).handshakeCompleted()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # A Failure has the frames it was raised in, and one of them is Twisted's caller of this
        # method, which has the Failure: a cycle.
        if reason is not None:
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        # Otherwise the protocol would be a producer for a transport which is its own.
        self.unregisterProducer()
        super().connectionLost(reason)
        # Before version 26.10 Twisted leaves the aggregator here, in a cycle of references.
        self._aggregator = _Discarded()  # type: ignore[assignment]
        self.write = self._aggregator.write  # type: ignore[method-assign]


class _Discarded:
    """
    Small writes to a connection that has ended.
    """

    def write(self, data: bytes) -> None:
        """
        Nobody gets this.
        """

    def flush(self) -> None:
        """
        There is nothing.
        """


class TLSFactory(TLSMemoryBIOFactory):
    """
    Wraps the protocols of another factory in L{TLSLayer}s.  Its context factory must be one of
    L{kaproto.security.tls}.
    """

    protocol = TLSLayer
