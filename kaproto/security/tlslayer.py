"""
The TLS protocol below a connection, with bounds on the time and memory that a peer can use.
"""

from __future__ import annotations

from typing import Final, cast

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from kaproto.errors import PeerFlooded, RemoteProtocolError
from kaproto.security.handshake import Handshake
from kaproto.transport import DirectWriter, StreamTransport, writeNow

__all__ = ["HANDSHAKE_MAX", "UNASKED_MAX", "TLSFactory", "TLSLayer"]

HANDSHAKE_MAX: Final = 32768
"""
The most bytes that a peer may send until its handshake is complete.  Four certificates with RSA
keys of 4096 bits are 6 KiB.
"""

_RECORD: Final = 16384
_PIECE: Final = 70000
"""
The size of the buffer for decrypted data: a little more than four records, which hold what Twisted
reads from a connection at once.
"""

UNASKED_MAX: Final = 1000
"""
The most TLS control messages that OpenSSL may read and write after the handshake.  A key update
and its answer are two.  Peers renew their keys after millions of messages, if ever.
"""


class TLSLayer(BufferingTLSTransport, DirectWriter):
    """
    Twisted's TLS protocol, with five differences.

      - Until the handshake is complete, at most L{HANDSHAKE_MAX} bytes are read, which bounds the
        number of certificates to parse.
      - OpenSSL answers some control messages by itself, even if the peer reads nothing, and
        Twisted keeps these answers in memory.  After L{UNASKED_MAX} such messages the connection
        is closed.
      - A wrapped protocol is notified too when the handshake has completed.  So a protocol that
        trusts the peer only after the handshake can be wrapped.
      - Records that arrive together are delivered together, and records that are written together
        are sent together.  L{writeNow} sends without waiting for other small writes.
      - A connection that has ended is freed at once instead of at the next run of the garbage
        collector: 30 KiB for each.

    @ivar bytesReceived: bytes that have arrived from the transport.  They include incomplete TLS
        records, which the wrapped protocol does not see but which prove that the peer is alive.
    """

    bytesReceived = 0

    def listener(self) -> object | None:
        """
        @return: the protocol to notify when the handshake has completed, perhaps wrapped by others;
            C{None} if there is none.
        """
        above: object | None = self.wrappedProtocol
        while above is not None and not IHandshakeListener.providedBy(above):
            above = getattr(above, "wrappedProtocol", None)
        return above

    def dataReceived(self, data: bytes | memoryview) -> None:
        """
        Decrypt bytes that have arrived from the transport.  They are not kept.
        """
        self.bytesReceived += len(data)
        handshake: Handshake | None = self.getHandle()
        if handshake is None:
            return
        if handshake.completed:
            super().dataReceived(data)
        else:
            self._handshakeReceived(handshake, data)
        if handshake.unasked > UNASKED_MAX and self.connected:
            flooded = PeerFlooded(f"more than {UNASKED_MAX} TLS messages without data")
            self.failVerification(Failure(flooded))

    def _handshakeReceived(self, handshake: Handshake, data: bytes | memoryview) -> None:
        room = HANDSHAKE_MAX - (self.bytesReceived - len(data))
        super().dataReceived(data[:room])
        self._flushSendBIO()
        if handshake.completed:
            # Application data may arrive together with the end of the handshake.
            rest = data[room:]
            if rest:
                super().dataReceived(rest)
        elif len(data) > room:
            problem = RemoteProtocolError(
                f"more than {HANDSHAKE_MAX} bytes without completing the TLS handshake"
            )
            self.failVerification(Failure(problem))

    def writeNow(self, data: bytes | memoryview, /) -> None:
        """
        Encrypt bytes, after any that still wait for encryption, and send them as
        L{kaproto.transport.writeNow} does.
        """
        self._aggregator.flush()
        handshake: Handshake | None = self.getHandle()
        if handshake is None or not handshake.completed or self.disconnecting:
            self.write(bytes(data))
        elif self._appSendBuffer:
            self._bufferedWrite(bytes(data))
        else:
            self._write(data)

    # The next three replace private methods of Twisted's.  If Twisted renames them, its own run
    # instead, which do the same in smaller pieces.

    def _write(self, data: bytes | memoryview) -> None:
        if self._lostTLSConnection:
            return
        view = memoryview(data)
        try:
            while view:
                # OpenSSL takes one record at a time.
                view = view[self._tlsConnection.send(view) :]
        except WantReadError:
            self._bufferedWrite(bytes(view))
        except Error:
            self._tlsShutdownFinished(Failure())
            return
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        transport = cast(StreamTransport, self.transport)
        # Ask first: reading an empty BIO raises an error, which costs more than all the rest.
        size = _PIECE
        while size == _PIECE:
            try:
                piece = self._tlsConnection.bio_read(_PIECE)
            except WantReadError:
                return
            writeNow(transport, piece)
            size = len(piece)

    def _flushReceiveBIO(self) -> None:
        handshake: Handshake = self.getHandle()
        before = handshake.unasked
        records: list[bytes] = []
        ending: tuple[Failure | None] | None = None
        while ending is None:
            try:
                records.append(handshake.recv(_RECORD))
            except WantReadError:
                break
            except ZeroReturnError:
                ending = (None,)
            except Error:
                ending = (Failure(),)
        if records and not self._aborted:
            ProtocolWrapper.dataReceived(self, b"".join(records))
        if ending is not None and not self._lostTLSConnection:
            if ending[0] is None:
                self._shutdownTLS()
            self._tlsShutdownFinished(ending[0])
        elif handshake.unasked != before:
            self._flushSendBIO()

    def _checkHandshakeStatus(self) -> None:
        handshake: Handshake | None = self.getHandle()
        if handshake is None or not (handshake.speaksFirst or self.bytesReceived):
            # A server has nothing to do until the client's first message.
            return
        # Twisted notifies only the protocol directly above.  If Twisted renames this method,
        # wrapped protocols are not notified, and keep treating the peer as unverified.
        super()._checkHandshakeStatus()
        if handshake.completed:
            listener = self.listener()
            if listener is not None and listener is not self.wrappedProtocol:
                IHandshakeListener(listener).handshakeCompleted()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # A Failure refers to the frames of its traceback.  One of them is the caller of this
        # method, which refers to the Failure: a cycle of references.
        if reason is not None:
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The transport is gone.
        """
        # Otherwise the protocol would stay registered as a producer with its own transport.
        self.unregisterProducer()
        super().connectionLost(reason)
        # Twisted before 26.10 leaves the aggregator here, in a cycle of references.
        self._aggregator = _Discarded()  # type: ignore[assignment]
        self.write = self._aggregator.write  # type: ignore[method-assign]


class _Discarded:
    """
    Discards small writes to a connection that has ended.
    """

    def write(self, data: bytes) -> None:
        """
        Discard the data.
        """

    def flush(self) -> None:
        """
        Do nothing.
        """


class TLSFactory(TLSMemoryBIOFactory):
    """
    Wraps the protocols of another factory in L{TLSLayer}s.  Its context factory must be one of
    L{kaproto.security.tls}.
    """

    protocol = TLSLayer
