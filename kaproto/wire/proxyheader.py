r"""
The PROXY header, versions 1 and 2, that a load balancer sends before the client's bytes (haproxy's
C{proxy-protocol.txt}).

Version 1 is a line of text::

    PROXY TCP4 192.0.2.7 198.51.100.1 56324 16509\r\n

Version 2 is binary: a signature of 12 bytes, a byte of version and command, a byte of address
family and transport, a length, then that many bytes: the addresses, and after them fields of type,
length and value (TLVs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from typing import Final

import attrs
from twisted.internet.address import IPv4Address, IPv6Address

from kaproto.errors import RemoteProtocolError

__all__ = ["HEADER_MAX", "ProxyHeader", "ProxyHeaderReader", "ProxyTLS", "crc32c"]

HEADER_MAX: Final = 16384
"""
The longest header of version 2 that is accepted, in bytes.  The format allows 65,551, but haproxy
sends no more than fits into its buffer.
"""

_LINE_MAX: Final = 107
"""
The longest header of version 1, in bytes, including its end of line.
"""

_TEXT: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = struct.Struct(">12sBBH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21

_UNSPECIFIED: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
_ADDRESSES: Final = {
    _TCP4: struct.Struct(">4s4sHH"),
    _TCP6: struct.Struct(">16s16sHH"),
    _UNIX: struct.Struct(">108s108s"),
}

_TLV: Final = struct.Struct(">BH")
_TLV_CRC32C: Final = 0x03
_TLV_SSL: Final = 0x20
_SSL_FIXED: Final = struct.Struct(">BI")
_SSL_COMMON_NAME: Final = 0x22
_SSL_CERTIFICATE: Final = 0x28
_CLIENT_SSL: Final = 0x01
_CLIENT_CERTIFICATE: Final = 0x02 | 0x04

_KINDS: Final[Mapping[bytes, type[IPv4 | IPv6]]] = {b"TCP4": IPv4, b"TCP6": IPv6}

_Address = IPv4Address | IPv6Address


@attrs.frozen
class ProxyTLS:
    """
    The balancer's statement about the client's TLS connection (C{PP2_TYPE_SSL}).

    @ivar verified: whether the client sent a certificate, on this connection or on the connection
        whose TLS session it resumes, and the balancer found it valid.  If not, the other fields do
        not prove who the client is.
    @ivar commonName: the common name in the certificate, C{None} if the balancer omits it.
    @ivar certificate: the certificate in DER, C{None} if the balancer omits it.
    """

    verified: bool
    commonName: str | None = None
    certificate: bytes | None = None


@attrs.frozen
class ProxyHeader:
    """
    The contents of a header.

    @ivar source: the client's address; C{None} if the balancer connected for itself, as for a
        health check, or does not know it.
    @ivar destination: the address that the client connected to; C{None} in the same cases.
    @ivar fields: the fields of version 2 by type, standard and private ones (0xE0 to 0xEF).  The
        first one of each type counts.
    """

    source: _Address | None = None
    destination: _Address | None = None
    fields: Mapping[int, bytes] = attrs.field(factory=dict)

    @property
    def tls(self) -> ProxyTLS | None:
        """
        Parse the balancer's statement about TLS.

        @return: C{None} if it is missing or malformed.
        """
        value = self.fields.get(_TLV_SSL)
        if value is None or len(value) < _SSL_FIXED.size:
            return None
        client, verification = _SSL_FIXED.unpack_from(value)
        if not client & _CLIENT_SSL:
            return None
        try:
            inner = _firstOfEach(value[_SSL_FIXED.size :])
            name = inner.get(_SSL_COMMON_NAME)
            return ProxyTLS(
                bool(client & _CLIENT_CERTIFICATE) and verification == 0,
                None if name is None else name.decode("utf-8"),
                inner.get(_SSL_CERTIFICATE),
            )
        except (RemoteProtocolError, UnicodeDecodeError):
            return None


class ProxyHeaderReader:
    """
    Reads one header, which may arrive in pieces.

    @ivar rest: the bytes after the header, once it is complete.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._received = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """
        Parse the next bytes.

        @return: the header; C{None} until it is complete.
        @raise RemoteProtocolError: as soon as the bytes cannot be a valid header.
        """
        received = self._received = self._received + data
        if received.startswith(_TEXT):
            return self._readLine(received)
        if received.startswith(_SIGNATURE):
            return self._readBinary(received)
        if _TEXT.startswith(received) or _SIGNATURE.startswith(received):
            return None
        raise RemoteProtocolError(f"{received[:16]!r} instead of a PROXY header")

    def _readLine(self, received: bytes) -> ProxyHeader | None:
        end = received.find(b"\r\n", 0, _LINE_MAX)
        if end >= 0:
            self.rest = received[end + 2 :]
            return _parseLine(received[:end])
        if len(received) >= _LINE_MAX:
            raise RemoteProtocolError(f"a PROXY header of more than {_LINE_MAX} bytes")
        return None

    def _readBinary(self, received: bytes) -> ProxyHeader | None:
        if len(received) < _FIXED.size:
            return None
        _signature, command, family, length = _FIXED.unpack_from(received)
        if command not in (_LOCAL, _PROXY):
            raise RemoteProtocolError(f"a PROXY header of unknown version or command {command:#x}")
        size = _FIXED.size + length
        if size > HEADER_MAX:
            raise RemoteProtocolError(f"a PROXY header of {size} bytes, more than {HEADER_MAX}")
        if len(received) < size:
            return None
        self.rest = received[size:]
        return _parseBinary(received[:size], command, family)


def _parseLine(line: bytes) -> ProxyHeader:
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader()
    # "PROXY TCP4 source destination port port"
    if words[1] not in _KINDS or len(words) != 6:  # noqa: PLR2004
        raise RemoteProtocolError(f"a PROXY header that is malformed: {line!r}")
    kind = _KINDS[words[1]]
    try:
        source = _address(_parseHost(kind, words[2]), _port(words[4]))
        destination = _address(_parseHost(kind, words[3]), _port(words[5]))
    except ValueError as error:
        raise RemoteProtocolError(f"a PROXY header with a bad address: {line!r}") from error
    return ProxyHeader(source, destination)


def _parseHost(kind: type[IPv4 | IPv6], word: bytes) -> IPv4 | IPv6:
    if b"%" in word:
        # Python accepts a zone, of any characters, after an IPv6 address.  A balancer sends none.
        raise ValueError(word)
    return kind(word.decode("ascii"))


def _port(word: bytes) -> int:
    if not word.isdigit() or (word.startswith(b"0") and word != b"0") or len(word) > len("65535"):
        raise ValueError(word)
    port = int(word)
    if port >= 1 << 16:
        raise ValueError(word)
    return port


def _address(host: IPv4 | IPv6, port: int) -> _Address:
    if isinstance(host, IPv6):
        # A dual-stack balancer sends IPv4 clients as ::ffff:192.0.2.7.  Rules use IPv4 addresses.
        if host.ipv4_mapped is None:
            return IPv6Address("TCP", str(host), port)
        host = host.ipv4_mapped
    return IPv4Address("TCP", str(host), port)


def _parseBinary(header: bytes, command: int, family: int) -> ProxyHeader:
    if command == _LOCAL:
        # The balancer's own connection.  Receivers must ignore the rest.
        return ProxyHeader()
    layout = _ADDRESSES.get(family)
    if layout is None and family != _UNSPECIFIED:
        raise RemoteProtocolError(
            f"a PROXY header for transport {family:#04x}, which is not a stream"
        )
    start = _FIXED.size + (0 if layout is None else layout.size)
    if start > len(header):
        raise RemoteProtocolError("a PROXY header too short for its addresses")
    fields = _firstOfEach(header[start:])
    _checkSum(header, start, fields)
    if layout is None or family == _UNIX:
        return ProxyHeader(fields=fields)
    kind = IPv4 if family == _TCP4 else IPv6
    source, destination, *ports = layout.unpack_from(header, _FIXED.size)
    return ProxyHeader(
        _address(kind(source), ports[0]), _address(kind(destination), ports[1]), fields
    )


def _fields(data: bytes, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """
    @return: an iterator over the fields: type, and the offsets where the value begins and ends.
    @raise RemoteProtocolError: when a field is longer than the data.
    """
    while offset < len(data):
        if offset + _TLV.size > len(data):
            raise RemoteProtocolError("a PROXY header with a field that is cut short")
        kind, length = _TLV.unpack_from(data, offset)
        start = offset + _TLV.size
        offset = start + length
        if offset > len(data):
            raise RemoteProtocolError("a PROXY header with a field that is cut short")
        yield kind, start, offset


def _firstOfEach(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for kind, start, end in _fields(data):
        found.setdefault(kind, data[start:end])
    return found


def _checkSum(header: bytes, start: int, fields: Mapping[int, bytes]) -> None:
    if _TLV_CRC32C not in fields:
        return
    # The checksum covers the whole header, with its own field set to zero.
    where = next(begin for kind, begin, _ in _fields(header, start) if kind == _TLV_CRC32C)
    blank = header[:where] + bytes(4) + header[where + 4 :]
    if fields[_TLV_CRC32C] != crc32c(blank).to_bytes(4):
        raise RemoteProtocolError("a PROXY header whose CRC32C does not match")


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """
    @return: the CRC32C (Castagnoli) of some bytes, as RFC 3720 defines it.
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
