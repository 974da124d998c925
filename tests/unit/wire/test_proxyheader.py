"""
Tests for L{kaproto.wire.proxyheader}.
"""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import RemoteProtocolError
from kaproto.wire.proxyheader import HEADER_MAX, ProxyHeader, ProxyHeaderReader, ProxyTLS, crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TCP4 = b"\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x40\x7d"
CLIENT4 = IPv4Address("TCP", "192.0.2.7", 56324)
SERVER4 = IPv4Address("TCP", "198.51.100.1", 16509)


def field(kind: int, value: bytes) -> bytes:
    """
    @return: a type-length-value field.
    """
    return struct.pack(">BH", kind, len(value)) + value


def header(
    rest: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None
) -> bytes:
    """
    @return: a header of version 2.
    """
    size = len(rest) if length is None else length
    return SIGNATURE + struct.pack(">BBH", command, family, size) + rest


def summed(rest: bytes, *, wrong: int = 0) -> bytes:
    """
    @return: a header with a checksum as its last field.
    """
    blank = header(TCP4 + rest + field(3, bytes(4)))
    return blank[:-4] + (crc32c(blank) ^ wrong).to_bytes(4)


def read(data: bytes) -> ProxyHeader | None:
    """
    Read a header that arrives in one piece.
    """
    return ProxyHeaderReader().feed(data)


class HeaderTests(SynchronousTestCase):
    """
    Tests for headers as load balancers send them.
    """

    def test_accepted(self) -> None:
        """
        Headers of both versions have the client's address, unless the balancer gives none.
        """
        six = bytes.fromhex("20010db8" + "00" * 11 + "01") * 2 + b"\x00\x07\x40\x7d"
        client6 = IPv6Address("TCP", "2001:db8::1", 7)
        server6 = IPv6Address("TCP", "2001:db8::1", 16509)
        mapped = bytes(10) + b"\xff\xff" + TCP4[:4] + bytes(15) + b"\1" + TCP4[8:]
        expected = {
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 16509\r\n": ProxyHeader(CLIENT4, SERVER4),
            b"PROXY TCP6 2001:db8::1 2001:db8::1 7 16509\r\n": ProxyHeader(client6, server6),
            b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 16509\r\n": ProxyHeader(
                CLIENT4, SERVER4
            ),
            b"PROXY UNKNOWN\r\n": ProxyHeader(),
            b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n": ProxyHeader(),
            header(TCP4): ProxyHeader(CLIENT4, SERVER4),
            header(six, family=0x21): ProxyHeader(client6, server6),
            header(mapped, family=0x21): ProxyHeader(CLIENT4, IPv6Address("TCP", "::1", 16509)),
            header(TCP4 + field(2, b"host")): ProxyHeader(CLIENT4, SERVER4, {2: b"host"}),
            header(TCP4 + field(2, b"a") + field(2, b"b")): ProxyHeader(
                CLIENT4, SERVER4, {2: b"a"}
            ),
            header(b"", family=0): ProxyHeader(),
            header(field(2, b"host"), family=0): ProxyHeader(fields={2: b"host"}),
            header(bytes(216), family=0x31): ProxyHeader(),
            header(TCP4, command=0x20): ProxyHeader(),
            header(b"", command=0x20, family=0): ProxyHeader(),
        }
        for data, result in expected.items():
            self.assertEqual(read(data), result, data)

    def test_refused(self) -> None:
        """
        Everything else raises an error that has the reason, as soon as that is certain.
        """
        expected = {
            b"\x16\x03\x01": "instead of a PROXY header",
            b"PROXy ": "instead of a PROXY header",
            b"\r\n\r\n\1": "instead of a PROXY header",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n": "malformed",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n": "malformed",
            b"PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n": "malformed",
            b"PROXY \r\n": "malformed",
            b"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n": "bad address",
            b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n": "bad address",
            b"PROXY TCP4 2001:db8::1 1.2.3.4 1 2\r\n": "bad address",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n": "bad address",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n": "bad address",
            b"PROXY TCP6 ::1 fe80::1%\n 1 2\r\n": "bad address",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n": "bad address",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n": "bad address",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n": "bad address",
            b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 2\r\n": "bad address",
            b"PROXY TCP4 " + b"1" * 100: "more than 107",
            header(TCP4, command=0x11): "version or command 0x11",
            header(TCP4, command=0x22): "version or command 0x22",
            header(TCP4, family=0x12): "not a stream",
            header(TCP4[:-1]): "too short for its addresses",
            header(TCP4 + b"\2\0"): "cut short",
            header(TCP4 + b"\2\0\2a"): "cut short",
            header(b"", length=HEADER_MAX): f"more than {HEADER_MAX}",
            summed(b"", wrong=1): "CRC32C",
            header(TCP4 + field(3, b"")): "CRC32C",
        }
        for data, reason in expected.items():
            self.assertIn(reason, str(self.assertRaises(RemoteProtocolError, read, data)), data)

    def test_checkSum(self) -> None:
        """
        The checksum is the CRC32C of RFC 3720 and covers the whole header.
        """
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        good = summed(field(2, b"host"))
        found = read(good)
        assert found is not None
        self.assertEqual(found.source, CLIENT4)
        kind = len(good) - 7  # the type of the checksum's field; if damaged, nothing is checked
        for number in {*range(len(good))} - {kind}:
            damaged = good[:number] + bytes([good[number] ^ 1]) + good[number + 1 :]
            try:
                result = read(damaged)
            except RemoteProtocolError:
                continue
            # A header whose length grew is incomplete, and a changed command may ignore the rest.
            self.assertIn(result, (None, ProxyHeader()), number)

    def test_bytes(self) -> None:
        """
        A header can arrive byte by byte.
        """
        for whole in (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 16509\r\n", header(TCP4)):
            reader = ProxyHeaderReader()
            found = [reader.feed(whole[at : at + 1]) for at in range(len(whole))]
            self.assertEqual(found[:-1], [None] * (len(whole) - 1))
            self.assertEqual(found[-1], read(whole))

    @given(st.data())
    def test_pieces(self, data: st.DataObject) -> None:
        """
        A header can arrive in any pieces, and the bytes after it are kept.
        """
        whole = data.draw(
            st.sampled_from(
                [
                    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 16509\r\n",
                    header(TCP4 + field(2, b"host")),
                ]
            )
        )
        rest = data.draw(st.binary(max_size=20))
        stream = whole + rest
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
        reader = ProxyHeaderReader()
        found, left = None, b""
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if found is None:
                found = reader.feed(stream[start:end])
                left = reader.rest
            else:
                left += stream[start:end]
        assert found is not None
        self.assertEqual((found.source, left), (CLIENT4, rest))

    @given(
        st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", SIGNATURE, header(TCP4)[:-14]])
    )
    def test_anything(self, data: bytes, start: bytes) -> None:
        """
        Arbitrary bytes are a header, an incomplete one, or raise L{RemoteProtocolError}.
        """
        reader = ProxyHeaderReader()
        for number in range(0, len(start + data), 7):
            try:
                if reader.feed((start + data)[number : number + 7]) is not None:
                    break
            except RemoteProtocolError:
                break


class TLSTests(SynchronousTestCase):
    """
    Tests for the TLS fields of a balancer that terminates TLS.
    """

    def tls(self, client: int, verification: int, inner: bytes = b"") -> ProxyTLS | None:
        """
        @return: the TLS part of a header with these fields.
        """
        value = struct.pack(">BI", client, verification) + inner
        found = read(header(TCP4 + field(0x20, value)))
        assert found is not None
        return found.tls

    def test_verified(self) -> None:
        """
        A client is verified only if it has sent a certificate and the balancer found that valid.
        """
        inner = field(0x22, b"alice") + field(0x28, b"DER")
        expected = [(0, 0, None), (2, 0, None), (1, 0, False), (1, 1, False), (3, 1, False)]
        expected += [(3, 0xFFFFFFFF, False), (3, 0, True), (5, 0, True), (7, 0, True)]
        for client, verification, verified in expected:
            wanted = None if verified is None else ProxyTLS(verified, "alice", b"DER")
            self.assertEqual(self.tls(client, verification, inner), wanted)

    def test_partial(self) -> None:
        """
        The name and the certificate may be missing.
        """
        self.assertEqual(self.tls(3, 0), ProxyTLS(verified=True))

    def test_unreadable(self) -> None:
        """
        TLS fields that cannot be decoded are ignored.
        """
        for inner in (b"\x22", field(0x22, b"\xff"), b"\x22\0\5alic"):
            self.assertIsNone(self.tls(3, 0, inner), inner)
        short = read(header(TCP4 + field(0x20, b"\3")))
        assert short is not None
        self.assertIsNone(short.tls)
        self.assertIsNone(ProxyHeader().tls)
