"""
Tests for L{kaproto.security.tlsrecords}.
"""

from __future__ import annotations

import contextlib
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.tlsrecords import EXTRA, PIECE, TLSRecords
from tests.pki import Authority, distinguished

_IDENTITY = Authority().issue(distinguished("server"), hosts=["host.test"])


class Base(SynchronousTestCase):
    """
    Base class: a connection after its handshake.

    @ivar connection: the connection under test.
    @ivar peer: the other end.
    """

    version = SSL.TLS1_2_VERSION

    def setUp(self) -> None:
        """
        Connect.
        """
        self.connect()

    def connect(self, version: int | None = None) -> None:
        """
        Complete a handshake between the connection under test and its peer.
        """
        version = self.version if version is None else version
        self.connection, self.peer = (
            self._end(SSL.TLS_SERVER_METHOD, version),
            self._end(SSL.TLS_CLIENT_METHOD, version),
        )
        self.connection.set_accept_state()
        self.peer.set_connect_state()
        for near, far in [(self.peer, self.connection), (self.connection, self.peer)] * 3:
            with contextlib.suppress(SSL.WantReadError):
                near.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                far.bio_write(near.bio_read(1 << 16))
        with contextlib.suppress(SSL.WantReadError):
            self.peer.recv(1)
        self.records = TLSRecords(self.connection)

    def _end(self, method: int, version: int) -> SSL.Connection:
        context = SSL.Context(method)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.use_certificate(_IDENTITY.certificate)
        context.use_privatekey(_IDENTITY.key)
        return SSL.Connection(context, None)

    def sent(self, *parts: bytes) -> bytes:
        """
        @return: what the peer sends, a record for each part.
        """
        for part in parts:
            self.peer.send(part)
        return self.peer.bio_read(1 << 22)

    def received(self, encrypted: bytes) -> bytes:
        """
        @return: the data that the peer decrypts.
        """
        data = b""
        for at in range(0, len(encrypted), 1000):
            self.peer.bio_write(encrypted[at : at + 1000])
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    data += self.peer.recv(1 << 14)
        return data


class RecordsTests(Base):
    """
    Tests for encrypting and decrypting, with TLS 1.2.
    """

    def test_oneRecord(self) -> None:
        """
        When exactly one record has arrived, OpenSSL is asked once.
        """
        record = self.sent(b"some data")
        with mock.patch.object(self.connection, "recv", wraps=self.connection.recv) as recv:
            self.assertEqual(self.records.decrypt(record), b"some data")
        recv.assert_called_once()
        self.assertFalse(self.records.needsCheck)

    def test_several(self) -> None:
        """
        Of several records, the complete ones are decrypted, and the last when its rest arrives.
        """
        arrived = self.sent(b"one ", b"two ", b"three")
        self.assertEqual(self.records.decrypt(arrived[:-3]), b"one two ")
        self.assertTrue(self.records.needsCheck)
        self.assertEqual(self.records.decrypt(arrived[-3:]), b"three")

    def test_before(self) -> None:
        """
        Records that OpenSSL was passed before are decrypted.
        """
        self.connection.bio_write(self.sent(b"one ", b"two"))
        self.assertEqual(self.records.decryptRest(), b"one two")

    def test_large(self) -> None:
        """
        Many large records, after the beginning of another, are decrypted to one place.
        """
        parts = [bytes([number]) * 16384 for number in range(30)]
        arrived = self.sent(*parts)
        self.assertEqual(self.records.decrypt(arrived[:16000]), b"")
        room = memoryview(bytearray(len(arrived) - 16000 + EXTRA))
        size = self.records.decryptInto(room, arrived[16000:])
        self.assertEqual(room[:size], b"".join(parts))

    def test_encrypt(self) -> None:
        """
        Data of any size up to a piece arrives at the peer, at once.
        """
        for size in (1, 16384, 16385, PIECE):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            for kind in (bytes, memoryview):
                self.assertEqual(self.received(self.records.encrypt(kind(data))), data)
        self.assertEqual(self.records.output(), b"")

    def test_notNow(self) -> None:
        """
        What OpenSSL does not encrypt now is kept for the caller.
        """
        send = self.connection.send
        with mock.patch.object(self.connection, "send", side_effect=[16384, SSL.WantReadError]):
            self.assertEqual(self.records.encrypt(bytes(16384) + b"rest"), b"")
        self.assertEqual(self.records.unencrypted, b"rest")
        self.assertTrue(self.records.needsCheck)
        self.assertEqual(send(b"x"), 1)

    def test_closed(self) -> None:
        """
        The peer's close alert is the ending, after the data before it.
        """
        last = self.sent(b"last")
        self.peer.shutdown()
        self.assertEqual(self.records.decrypt(last + self.peer.bio_read(1000)), b"last")
        self.assertIsInstance(self.records.ending, SSL.ZeroReturnError)
        self.assertTrue(self.records.needsCheck)

    def test_firstError(self) -> None:
        """
        The ending is the first error, whatever arrives after it.
        """
        arrived = bytearray(self.sent(*[bytes(16384)] * 9))
        arrived[100] ^= 1
        room = memoryview(bytearray(len(arrived) + EXTRA))
        self.assertEqual(self.records.decryptInto(room, bytes(arrived)), 0)
        self.assertIn("bad record", str(self.records.ending))

    def test_broken(self) -> None:
        """
        So is an error, whether one record arrives or several; it keeps nothing alive.
        """
        room = memoryview(bytearray(PIECE + EXTRA))
        for isLong in (False, True):
            for count in (1, 2):
                self.connect()
                arrived = bytearray(self.sent(*[b"data"] * count))
                arrived[-1] ^= 1
                if isLong:
                    self.records.decryptInto(room, bytes(arrived))
                else:
                    self.records.decrypt(bytes(arrived))
                assert self.records.ending is not None
                self.assertIn("bad record", str(self.records.ending))
                self.assertIsNone(self.records.ending.__traceback__)

    def test_almost(self) -> None:
        """
        Bytes that only look like one record are no problem: too few, too many, or plain text.
        """
        arrived = self.sent(b"one")
        for piece, expected in ((arrived[:4], b""), (arrived[4:], b"one")):
            self.assertEqual(self.records.decrypt(piece), expected)
        self.assertEqual(self.records.decrypt(b"\x17\x03\x03\0\0"), b"")


class SplitTests(Base):
    """
    Tests for records that are split in any way.
    """

    @given(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=20), st.data())
    def test_anything(self, parts: list[bytes], data: st.DataObject) -> None:
        """
        The data is the same, however the records are split on their way.
        """
        self.connect(data.draw(st.sampled_from([SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])))
        arrived = self.sent(*parts)
        decrypted = b""
        room = memoryview(bytearray(len(arrived) + EXTRA))
        while arrived:
            piece = arrived[: data.draw(st.integers(1, len(arrived)))]
            arrived = arrived[len(piece) :]
            if data.draw(st.booleans()):
                decrypted += self.records.decrypt(piece)
            else:
                decrypted += room[: self.records.decryptInto(room, memoryview(piece))]
        self.assertEqual(decrypted, b"".join(parts))


class LaterVersionTests(RecordsTests):
    """
    The same with TLS 1.3, whose alerts and key updates look like data from outside.
    """

    version = SSL.TLS1_3_VERSION
