"""
Encrypts and decrypts the data of one TLS connection, with few calls of OpenSSL and small buffers.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from OpenSSL.SSL import Connection, Error, WantReadError

__all__ = ["EXTRA", "PIECE", "TLSRecords"]

_Bytes = bytes | memoryview

_RECORD: Final = 16384
"""
The most data in one record.
"""

PIECE: Final = 4 * _RECORD
"""
The most bytes to pass to OpenSSL before taking its output.  Each connection keeps buffers of this
size until it ends.
"""

_OUTPUT: Final = PIECE + 4464
"""
A little more than an encrypted piece has.
"""

EXTRA: Final = 2 * _RECORD
"""
More bytes than an incomplete record has, which OpenSSL may have kept.
"""

# The head of a record: its type, version and length (RFC 5246 section 6.2.1, RFC 8446 section 5.1).
_HEAD: Final = Struct("!BHH")
_DATA: Final = 23
_VERSION: Final = 0x0303


class TLSRecords:
    """
    Encrypts and decrypts the data of a connection whose handshake has completed.

    @ivar needsCheck: whether control messages may have arrived, or data waits to be encrypted.  The
        owner checks that and sets this to C{False}.
    @ivar ending: why nothing more can be decrypted: C{ZeroReturnError} when the peer has closed the
        connection, another C{Error} when it is broken, C{None} before.
    @ivar unencrypted: data that OpenSSL cannot encrypt before more bytes have arrived.
    """

    __slots__ = ("_connection", "ending", "needsCheck", "unencrypted")

    def __init__(self, connection: Connection) -> None:
        """
        @param connection: OpenSSL's connection, which has buffers instead of a socket.
        """
        self._connection = connection
        self.needsCheck = False
        self.ending: Error | None = None
        self.unencrypted = b""

    def decrypt(self, received: _Bytes) -> bytes:
        """
        @param received: at most L{PIECE} bytes that have arrived.  They are not kept.
        @return: the data of all complete records.
        """
        connection = self._connection
        connection.bio_write(received)
        if not _isRecord(received):
            return self.decryptRest()
        # The usual case.  Nothing is left after this record.  OpenSSL would say so with an error,
        # which costs as much as decrypting a short record.
        try:
            return connection.recv(_RECORD)
        except Error as error:
            self._stopped(error)
            return b""

    def decryptRest(self) -> bytes:
        """
        @return: the data of all complete records that OpenSSL has been passed already.
        """
        records: list[bytes] = []
        try:
            while True:
                records.append(self._connection.recv(_RECORD))
        except Error as error:
            self._stopped(error)
        return b"".join(records)

    def decryptInto(self, room: memoryview, received: _Bytes) -> int:
        """
        Decrypt many records to one place.

        @param room: the memory for the data, L{EXTRA} bytes longer than C{received}.
        @param received: the bytes that have arrived.  They are not kept.
        @return: how many bytes of C{room} are used.
        """
        size = 0
        for begin in range(0, len(received), PIECE):
            self._connection.bio_write(received[begin : begin + PIECE])
            try:
                while True:
                    size += self._connection.recv_into(room[size:], _RECORD)
            except Error as error:
                self._stopped(error)
            if self.ending is not None:
                break
        return size

    def _stopped(self, error: Error) -> None:
        self.needsCheck = True
        if not isinstance(error, WantReadError):
            # Its traceback refers to this object: a cycle of references.
            self.ending = error.with_traceback(None)

    def encrypt(self, data: _Bytes) -> bytes:
        """
        @param data: at most L{PIECE} bytes of data.  They are not kept.
        @return: the encrypted data, and any other bytes that OpenSSL has for the peer.
        @raise Error: when the connection is broken.
        """
        connection = self._connection
        try:
            while True:
                # OpenSSL takes one record at a time.
                sent = connection.send(data)
                if sent == len(data):
                    return connection.bio_read(_OUTPUT)
                data = memoryview(data)[sent:]
        except WantReadError:
            self.needsCheck = True
            self.unencrypted = bytes(data)
            return self.output()

    def output(self) -> bytes:
        """
        @return: the bytes that OpenSSL has for the peer.
        """
        try:
            return self._connection.bio_read(_OUTPUT)
        except WantReadError:
            return b""


def _isRecord(data: _Bytes) -> bool:
    """
    @return: whether these are the bytes of one whole record with data.  The rest of another record
        would have to begin with the same five bytes by chance.
    """
    size = len(data) - _HEAD.size
    return size > 0 and _HEAD.unpack_from(data) == (_DATA, _VERSION, size)
