"""
Encrypts TLS records by hand, to send what OpenSSL does not send.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

__all__ = ["CIPHER", "RawTLS12", "RawTLS13"]

CIPHER: Final = b"ECDHE-ECDSA-AES128-GCM-SHA256"
"""
The cipher suite that the client must offer for L{RawTLS12}.
"""

_HANDSHAKE: Final = 22
_APPLICATION: Final = 23
_CLIENT_HELLO: Final = 1
_KEY_UPDATE: Final = 24
_GROUPS: Final = struct.pack(">HHHH", 10, 4, 2, 23)
_SIGNATURES: Final = struct.pack(">HHHH", 13, 4, 2, 0x0403)
_SUITE: Final = 0xC02B


def _expandLabel(secret: bytes, label: bytes, length: int) -> bytes:
    """
    @return: HKDF-Expand-Label of RFC 8446, up to the length of one hash.
    """
    full = b"tls13 " + label
    info = struct.pack(">HB", length, len(full)) + full + b"\0\1"
    return hmac.digest(secret, info, "sha384")[:length]


def _prf(secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """
    @return: C{length} bytes of the pseudorandom function of RFC 5246.
    """
    seed = label + seed
    block, data = seed, b""
    while len(data) < length:
        block = hmac.digest(secret, block, hashlib.sha256)
        data += hmac.digest(secret, block + seed, hashlib.sha256)
    return data[:length]


class RawTLS12:
    """
    The client's side of a TLS 1.2 connection with L{CIPHER}, after the handshake.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        """
        @param connection: has completed the handshake, and sent nothing since then.
        """
        master, ours = connection.master_key(), connection.client_random()
        theirs = connection.server_random()
        assert master is not None, "the handshake is complete"
        assert ours is not None, "the handshake is complete"
        assert theirs is not None, "the handshake is complete"
        seed = theirs + ours
        block = _prf(master, b"key expansion", seed, 40)
        self._cipher = AESGCM(block[:16])
        self._salt = block[32:36]
        self._sequence = 1
        self._finished = connection.get_finished()

    def record(self, kind: int, data: bytes) -> bytes:
        """
        @return: an encrypted record.
        """
        number = struct.pack(">Q", self._sequence)
        self._sequence += 1
        header = struct.pack(">BHH", kind, 0x303, len(data))
        encrypted = self._cipher.encrypt(self._salt + number, data, number + header)
        return struct.pack(">BHH", kind, 0x303, 8 + len(encrypted)) + number + encrypted

    def hello(self) -> bytes:
        """
        @return: a ClientHello, which begins a renegotiation (RFC 5746).
        """
        assert self._finished is not None, "the handshake is complete"
        size = len(self._finished)
        extensions = struct.pack(">HHB", 0xFF01, 1 + size, size) + self._finished
        extensions += _GROUPS + _SIGNATURES
        body = b"\x03\x03" + os.urandom(32) + b"\0" + struct.pack(">HH", 2, _SUITE) + b"\1\0"
        body += struct.pack(">H", len(extensions)) + extensions
        message = bytes([_CLIENT_HELLO]) + len(body).to_bytes(3) + body
        return self.record(_HANDSHAKE, message)

    def application(self, data: bytes) -> bytes:
        """
        @return: a record with application data.
        """
        return self.record(_APPLICATION, data)


class RawTLS13:
    """
    The client's side of a TLS 1.3 connection with C{TLS_AES_256_GCM_SHA384}, OpenSSL's first
    choice, after the handshake.
    """

    def __init__(self, context: SSL.Context) -> None:
        """
        @param context: the client's.  Its next connection is the one whose keys are used.
        """
        context.set_keylog_callback(self._keyLogged)

    def _keyLogged(self, _connection: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.split()
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._use(bytes.fromhex(secret.decode()))

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expandLabel(secret, b"key", 32))
        self._vector = int.from_bytes(_expandLabel(secret, b"iv", 12))
        self._sequence = 0

    def _record(self, kind: int, data: bytes) -> bytes:
        nonce = (self._vector ^ self._sequence).to_bytes(12)
        self._sequence += 1
        header = struct.pack(">BHH", _APPLICATION, 0x303, len(data) + 17)
        return header + self._cipher.encrypt(nonce, data + bytes([kind]), header)

    def keyUpdate(self) -> bytes:
        """
        @return: a KeyUpdate for this side, which requests one from the other side.
        """
        record = self._record(_HANDSHAKE, bytes([_KEY_UPDATE, 0, 0, 1, 1]))
        self._use(_expandLabel(self._secret, b"traffic upd", 48))
        return record

    def application(self, data: bytes) -> bytes:
        """
        @return: a record with application data.
        """
        return self._record(_APPLICATION, data)
