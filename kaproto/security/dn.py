"""
Distinguished names in certificates, as text in libvirt's form, and the patterns that match them.

libvirt uses GnuTLS to make the text and GLib to match it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

__all__ = ["NAME_MAX", "distinguishedName", "matchesGlob", "nameFromText"]

NAME_MAX: Final = 4096
"""
The longest distinguished name, in bytes of DER.  Any client chooses the name in its certificate,
and the server formats, compares, logs and stores it.
"""

_TYPE_MAX: Final = 32
"""
The longest attribute type, in bytes.  Those that have a label take ten at most.
"""

_NUMERIC: Final = 0x12
_PRINTABLE: Final = 0x13
_UTF8: Final = 0x0C
_TELETEX: Final = 0x14
_IA5: Final = 0x16
_UNIVERSAL: Final = 0x1C
_BMP: Final = 0x1E
_VERSION: Final = 0xA0
_SUBJECT: Final = 4

_NO_NUL: Final = frozenset({_NUMERIC, _PRINTABLE, _UTF8, _IA5})
_DIRECTORY: Final = frozenset({_UTF8, _PRINTABLE, _TELETEX, _BMP, _UNIVERSAL})

_ATTRIBUTES: Final[dict[str, tuple[str, frozenset[int]]]] = {
    "0.9.2342.19200300.100.1.1": ("UID", _DIRECTORY),
    "0.9.2342.19200300.100.1.25": ("DC", frozenset({_IA5})),
    "1.2.643.3.131.1.1": ("INN", frozenset({_NUMERIC})),
    "1.2.643.100.1": ("OGRN", frozenset({_NUMERIC})),
    "1.2.643.100.3": ("SNILS", frozenset({_NUMERIC})),
    "1.2.643.100.5": ("OGRNIP", frozenset({_NUMERIC})),
    "1.2.840.113549.1.9.1": ("EMAIL", frozenset({_IA5})),
    "1.2.840.113556.1.4.656": ("userPrincipalName", _DIRECTORY),
    "1.3.6.1.4.1.311.60.2.1.1": ("jurisdictionOfIncorporationLocalityName", _DIRECTORY),
    "1.3.6.1.4.1.311.60.2.1.2": ("jurisdictionOfIncorporationStateOrProvinceName", _DIRECTORY),
    "1.3.6.1.4.1.311.60.2.1.3": (
        "jurisdictionOfIncorporationCountryName",
        frozenset({_PRINTABLE}),
    ),
    "1.3.6.1.5.5.7.8.5": ("XmppAddr", frozenset({_UTF8})),
    "1.3.6.1.5.5.7.9.2": ("placeOfBirth", _DIRECTORY),
    "1.3.6.1.5.5.7.9.3": ("gender", frozenset({_PRINTABLE})),
    "1.3.6.1.5.5.7.9.4": ("countryOfCitizenship", frozenset({_PRINTABLE})),
    "1.3.6.1.5.5.7.9.5": ("countryOfResidence", frozenset({_PRINTABLE})),
    "2.5.4.3": ("CN", _DIRECTORY),
    "2.5.4.4": ("surName", _DIRECTORY),
    "2.5.4.5": ("serialNumber", frozenset({_PRINTABLE})),
    "2.5.4.6": ("C", frozenset({_PRINTABLE})),
    "2.5.4.7": ("L", _DIRECTORY),
    "2.5.4.8": ("ST", _DIRECTORY),
    "2.5.4.9": ("street", _DIRECTORY),
    "2.5.4.10": ("O", _DIRECTORY),
    "2.5.4.11": ("OU", _DIRECTORY),
    "2.5.4.12": ("title", _DIRECTORY),
    "2.5.4.13": ("description", _DIRECTORY),
    "2.5.4.15": ("businessCategory", _DIRECTORY),
    "2.5.4.17": ("postalCode", _DIRECTORY),
    "2.5.4.20": ("telephoneNumber", frozenset({_PRINTABLE})),
    "2.5.4.41": ("name", _DIRECTORY),
    "2.5.4.42": ("givenName", _DIRECTORY),
    "2.5.4.43": ("initials", _DIRECTORY),
    "2.5.4.44": ("generationQualifier", _DIRECTORY),
    "2.5.4.46": ("dnQualifier", frozenset({_PRINTABLE})),
    "2.5.4.65": ("pseudonym", _DIRECTORY),
}
"""
The label of each attribute type, and the ASN.1 string types whose values are shown as text.  Other
values are shown in hexadecimal.
"""


def distinguishedName(certificate: bytes) -> str:
    """
    Format the subject of a certificate as libvirt does in C{tls_allowed_dn_list}, in its log and
    in C{virt-admin client-info}: the attributes in the order of the certificate, separated by a
    comma without a space, as in C{C=GB,O=Red Hat,CN=alice,EMAIL=alice@example.org}.

    This reads the bytes of the certificate: the text of a value depends on its ASN.1 type, which
    libraries lose when they decode the value.

    @param certificate: in DER.
    @return: the name; bytes that are not UTF-8 become lone surrogates.
    @raise ValueError: if the certificate is malformed, the name is longer than L{NAME_MAX}, or a
        value is empty; libvirt cannot format an empty value either.
    """
    _tag, signed = next(_elements(certificate), (0, b""))
    _tag, toBeSigned = next(_elements(signed), (0, b""))
    fields = [content for tag, content in _elements(toBeSigned) if tag != _VERSION]
    if len(fields) < _SUBJECT + 1:
        raise ValueError("not a certificate")
    return _format(fields[_SUBJECT])


def nameFromText(text: str) -> str:
    """
    Convert a distinguished name from the form of RFC 2253 or RFC 4514, in which the last attribute
    comes first, as in C{CN=alice,O=Red Hat,C=GB}.

    @return: the name in libvirt's form.
    @raise ValueError: if the text is not in that form, or the name is longer than L{NAME_MAX}.
    """
    name = x509.Name.from_rfc4514_string(text, {"emailAddress": NameOID.EMAIL_ADDRESS})
    _tag, attributes = next(_elements(name.public_bytes()))
    return _format(attributes)


def _format(name: bytes) -> str:
    """
    @param name: the content of a C{Name} in DER.
    """
    if len(name) > NAME_MAX:
        raise ValueError(f"a name of {len(name)} bytes, where {NAME_MAX} are allowed")
    return ",".join(
        "+".join(_attribute(attribute) for _tag, attribute in _elements(relative))
        for _tag, relative in _elements(name)
    )


def matchesGlob(text: str, pattern: str) -> bool:
    """
    @param pattern: C{*} matches any characters or none, C{?} matches one, and any other character,
        brackets included, matches itself.
    @return: whether the pattern matches the whole text.
    """
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    @return: the tag and the content of each element in a sequence of DER elements.
    """
    offset = 0
    while offset < len(data):
        tag = data[offset]
        content, end = _content(data, offset)
        yield tag, data[content:end]
        offset = end


def _content(data: bytes, offset: int) -> tuple[int, int]:
    """
    @return: the offsets at which the content of the element at C{offset} begins and ends.
    @raise ValueError: if it ends beyond the data.
    """
    start = offset + 2
    size = data[offset + 1] if start <= len(data) else 0
    if size & 0x80:
        octets = size & 0x7F
        size = int.from_bytes(data[start : start + octets])
        start += octets
    if start + size > len(data):
        raise ValueError("a truncated certificate")
    return start, start + size


def _attribute(data: bytes) -> str:
    _start, typeEnd = _content(data, 0)
    (_tag, objectIdentifier), (tag, content) = _elements(data)
    identifier = _dotted(objectIdentifier)
    label, readable = _ATTRIBUTES.get(identifier, (identifier, frozenset()))
    if readable is _DIRECTORY and not content:
        raise ValueError(f"the certificate's subject has an empty {label}")
    if tag not in readable or not content or (b"\0" in content and tag in _NO_NUL):
        return f"{label}=#{data[typeEnd:].hex()}"
    text = _text(tag, content)
    # As GnuTLS does for strings that it cannot convert.
    if text is None:
        return f"{label}=\\#{content.hex()}"
    if "\0" in text:
        return f"{label}=#{data[typeEnd:].hex()}"
    return f"{label}={_escaped(text)}"


def _text(tag: int, content: bytes) -> str | None:
    if tag == _UNIVERSAL:
        return None
    if tag == _TELETEX:
        text = content.decode("ascii", "replace")
        return text if text.isprintable() and text.isascii() else None
    if tag == _BMP:
        try:
            return content.decode("utf-16-be")
        except UnicodeDecodeError:
            return None
    return content.decode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    escaped = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in text)
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if text.endswith(" ") and len(text) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped


def _dotted(encoded: bytes) -> str:
    # The time this takes grows with the square of the length.
    if not 0 < len(encoded) <= _TYPE_MAX:
        raise ValueError(f"an attribute type of {len(encoded)} bytes")
    numbers = []
    number = 0
    for byte in encoded:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if not numbers:
        raise ValueError("a truncated attribute type")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))
