"""
The TLS protocol below a connection, with bounds on the time and memory that a peer can use.
"""

from __future__ import annotations

from typing import Final, cast

from OpenSSL.SSL import Error, ZeroReturnError
from twisted.internet.interfaces import IHandshakeListener, ITransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from kaproto.errors import PeerFlooded, RemoteProtocolError
from kaproto.security.handshake import Handshake
from kaproto.security.tlsrecords import PIECE, TLSRecords
from kaproto.transport import DirectWriter, StreamTransport, writeNow

__all__ = ["HANDSHAKE_MAX", "UNASKED_MAX", "TLSFactory", "TLSLayer"]

HANDSHAKE_MAX: Final = 32768
"""
The most bytes that a peer may send until its handshake is complete.  Four certificates with RSA
keys of 4096 bits are 6 KiB.
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
        are sent together, in pieces that keep OpenSSL's buffers small.  L{writeNow} sends without
        waiting for other small writes.
      - A connection that has ended is freed at once instead of at the next run of the garbage
        collector: 30 KiB for each.

    @ivar bytesReceived: bytes that have arrived from the transport.  They include incomplete TLS
        records, which the wrapped protocol does not see but which prove that the peer is alive.
    @ivar isEnding: whether L{end} has to be called, since nothing more can be decrypted.
    """

    bytesReceived = 0
    isEnding = False
    _records: TLSRecords | None = None
    _unasked = 0

    def makeConnection(self, transport: ITransport) -> None:
        """
        Start the handshake.
        """
        super().makeConnection(transport)
        self._records = TLSRecords(self.getHandle())

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
        handshake: Handshake | None = self.getHandle()
        if handshake is not None and not handshake.completed:
            self.bytesReceived += len(data)
            self._handshakeReceived(handshake, data)
            return
        for begin in range(0, len(data), PIECE):
            self._deliver(self.decrypt(data[begin : begin + PIECE]))

    def decrypt(
        self, data: bytes | memoryview, room: memoryview | None = None
    ) -> bytes | memoryview:
        """
        Decrypt bytes that have arrived from the transport after the handshake, for a caller that
        delivers the data itself and then, if C{isEnding} is set, calls L{end}.

        @param data: the bytes, which are not kept.
        @param room: where to put the data if C{data} is longer than
            L{PIECE<kaproto.security.tlsrecords.PIECE>}.
        @return: the data, perhaps in C{room}.
        """
        self.bytesReceived += len(data)
        records = self._records
        if records is None:
            return b""
        decrypted: bytes | memoryview
        if room is None or len(data) <= PIECE:
            decrypted = records.decrypt(data)
        else:
            decrypted = room[: records.decryptInto(room, data)]
        if records.needsCheck:
            self._check(records)
        return decrypted

    def end(self) -> None:
        """
        End the connection, since the peer has closed it or it is broken.
        """
        self.isEnding = False
        ending = None if self._records is None else self._records.ending
        if self._lostTLSConnection or ending is None:
            return
        if isinstance(ending, ZeroReturnError):
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        else:
            self._tlsShutdownFinished(Failure(ending))

    def _check(self, records: TLSRecords) -> None:
        """
        Write what could not be encrypted before, and OpenSSL's answers to control messages.
        """
        records.needsCheck = False
        self.isEnding = records.ending is not None
        if self._appSendBuffer:
            self._unbufferPendingWrites()
        handshake: Handshake | None = self.getHandle()
        if handshake is None or handshake.unasked == self._unasked:
            return
        self._unasked = handshake.unasked
        if self._unasked > UNASKED_MAX and self.connected:
            flooded = PeerFlooded(f"more than {UNASKED_MAX} TLS messages without data")
            self.failVerification(Failure(flooded))
        elif not self.isEnding:
            self._flushSendBIO()

    def _deliver(self, data: bytes | memoryview) -> None:
        if data and not self._aborted:
            ProtocolWrapper.dataReceived(self, bytes(data))
        if self.isEnding:
            self.end()

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
        records = self._records
        if records is None:
            super()._write(bytes(data))
            return
        if self._lostTLSConnection:
            return
        transport = cast(StreamTransport, self.transport)
        try:
            for begin in range(0, len(data), PIECE):
                writeNow(transport, records.encrypt(data[begin : begin + PIECE]))
                if records.unencrypted:
                    left, records.unencrypted = records.unencrypted, b""
                    self._bufferedWrite(left + data[begin + PIECE :])
                    return
        except Error:
            self._tlsShutdownFinished(Failure())

    def _flushSendBIO(self) -> None:
        records = self._records
        if records is None:
            super()._flushSendBIO()
            return
        while output := records.output():
            writeNow(cast(StreamTransport, self.transport), output)

    def _flushReceiveBIO(self) -> None:
        records = self._records
        assert records is not None, "there is one until the connection has ended"
        data = records.decryptRest()
        self._check(records)
        self._deliver(data)

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
        self._records = None
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
