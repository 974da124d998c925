"""
A minimal DER encoder, for certificates that no library would make.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["body", "certificateFor", "element", "name", "objectIdentifier"]

Attribute = tuple[str, int, bytes]


def element(tag: int, content: bytes) -> bytes:
    """
    @return: an element with its tag and its length in the shortest form.
    """
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def body(encoded: bytes) -> bytes:
    """
    @return: the content of an element.
    """
    return encoded[2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0) :]


def objectIdentifier(dotted: str) -> bytes:
    """
    @param dotted: such as C{2.5.4.3}.
    """
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (first * 40 + second, *rest):
        octets = bytes([number & 0x7F])
        while number := number >> 7:
            octets = bytes([number & 0x7F | 0x80]) + octets
        content += octets
    return element(0x06, content)


def name(*relative: Sequence[Attribute]) -> bytes:
    """
    @param relative: the attributes of each relative distinguished name: object identifier, string
        type and content.
    """
    return element(
        0x30,
        b"".join(
            element(
                0x31,
                b"".join(
                    element(0x30, objectIdentifier(kind) + element(tag, content))
                    for kind, tag, content in attributes
                ),
            )
            for attributes in relative
        ),
    )


def certificateFor(subject: bytes) -> bytes:
    """
    @param subject: a L{name}.
    @return: a certificate that is well-formed, but whose signature is invalid.
    """
    algorithm = element(0x30, objectIdentifier("1.2.840.10045.4.3.2"))
    dates = element(0x30, element(0x17, b"260101000000Z") + element(0x17, b"270101000000Z"))
    issuer = name([("2.5.4.3", 0x0C, b"issuer")])
    kind = objectIdentifier("1.2.840.10045.2.1") + objectIdentifier("1.2.840.10045.3.1.7")
    # Any point of the curve is a valid public key: this is the generator.
    point = bytes.fromhex(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    key = element(0x30, element(0x30, kind) + element(0x03, b"\0" + point))
    version = element(0xA0, element(0x02, b"\2"))
    serial = element(0x02, b"\1")
    body = element(0x30, version + serial + algorithm + issuer + dates + subject + key)
    return element(0x30, body + algorithm + element(0x03, b"\0\x30\x06\2\1\1\2\1\1"))
