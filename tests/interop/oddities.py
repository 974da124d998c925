"""
A table of malformed and unusual input, with what libvirtd does with each.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.interop import wire
from tests.interop.wire import WireError

__all__ = ["ARGUMENTS", "BEFORE_OPEN", "FRAMING", "KEEPALIVE", "PROGRAMS", "Row"]

SERIAL = 77
"""
The serial of each message in the table, which distinguishes its reply from others.
"""


class Row(NamedTuple):
    """
    One piece of malformed or unusual input.

    @ivar name: what is unusual about it.
    @ivar data: its bytes.
    @ivar expected: C{"closed"}, C{"ignored"}, C{"waits"} for more bytes, C{"fine"} for a reply
        without error, C{"pong"}, C{"goodbye"} for a reply without error followed by a close, or the
        error in the reply.
    @ivar opened: whether the connection is opened first; otherwise this is its first message.
    """

    name: str
    data: bytes
    expected: WireError | str
    opened: bool = True


def _rpc(message: str) -> WireError:
    return WireError(39, 7, 2, message)


def _internal(message: str) -> WireError:
    return WireError(1, 7, 2, f"internal error: {message}")


def _odd(procedure: int = wire.GET_HOSTNAME, payload: bytes = b"", **fields: int) -> bytes:
    """
    @return: a message with the serial L{SERIAL}.
    """
    fields.setdefault("serial", SERIAL)
    return wire.encode(procedure, payload, **fields)


def _length(length: int) -> bytes:
    """
    @return: a call of hostname whose length field is C{length}.
    """
    return _odd(length=length)


_UNDECODABLE = _rpc("Unable to decode message payload")
_NOT_OPEN = _internal("hypervisor connection not open")
_LARGEST = 33554436
_LONGEST_STRING = 4194304


def _openArguments(name: bytes) -> bytes:
    return struct.pack(">II", 1, len(name)) + name + b"\0" * (-len(name) % 4) + b"\0\0\0\0"


FRAMING = [
    *(Row(f"length {length}", _length(length), "closed") for length in (0, 3, 4, 5, 12, 24, 27)),
    Row("length 0 as the first message", _length(0), "closed", opened=False),
    Row("length beyond the largest", _length(_LARGEST + 1), "closed"),
    Row("length with the top bit set", _length(0x80000000), "closed"),
    Row("length of all ones", _length(0xFFFFFFFF), "closed"),
    Row("four bytes of text", b"GET / HTTP/1.1\r\n\r\n", "closed", opened=False),
    Row("the largest length, nothing more", _length(_LARGEST), "waits"),
    Row("a length with its payload missing", _odd(length=36), "waits"),
    Row("half a length word", b"\0\0", "waits"),
    Row("a whole call and half of another", _odd() + _odd(serial=78)[:14], "waits"),
    Row("type 4 that announces one descriptor", _odd(payload=b"\0\0\0\1", kind=4), "closed"),
    Row("type 4 that announces 33 descriptors", _odd(payload=b"\0\0\0\x21", kind=4), "closed"),
    Row("type 4 without descriptors", _odd(payload=b"\0\0\0\0", kind=4), "fine"),
]

PROGRAMS = [
    Row(
        f"program {program} version {version} type {kind}",
        _odd(program=program, version=version, kind=kind, payload=payload),
        _rpc(f"Cannot find program {program} version {version}"),
    )
    for program, version in ((0x11223344, 1), (0x11223344, 9), (wire.REMOTE, 2), (0x06900690, 1))
    for kind, payload in ((0, b""), (4, b"\0\0\0\0"))
] + [
    # Program and version are printed as signed numbers, a status as an unsigned one.
    Row(
        "the largest program and version",
        _odd(program=0xFFFFFFFF, version=0xFFFFFFFE),
        _rpc("Cannot find program -1 version -2"),
    ),
    Row(
        "a call with status -1",
        _odd(status=-1),
        _rpc("Unexpected message status 4294967295"),
    ),
    *(
        Row(f"unknown program, type {kind}", _odd(program=0x11223344, kind=kind), "ignored")
        for kind in (1, 2, 3, 6, 7)
    ),
    *(
        Row(f"procedure {number}", _odd(number), _rpc(f"unknown procedure: {number}"))
        for number in (9999, 0, -1, -2147483648, 318, wire.CONNECTION_CLOSED)
    ),
    Row("unknown procedure first", _odd(9999), _rpc("unknown procedure: 9999"), opened=False),
    Row(
        "unknown program first",
        _odd(program=5),
        _rpc("Cannot find program 5 version 1"),
        opened=False,
    ),
    *(Row(f"type {kind}", _odd(kind=kind), "ignored") for kind in (1, 2, 3, 6, 7, 0xFFFFFFFF)),
    *(
        Row(
            f"a call with status {status}",
            _odd(status=status),
            _rpc(f"Unexpected message status {status}"),
        )
        for status in (1, 2, 3)
    ),
    Row(
        "an unknown procedure with a status",
        _odd(9999, status=1),
        _rpc("Unexpected message status 1"),
    ),
    Row("a serial already used", _odd(serial=0), "fine"),
    Row("the largest serial", _odd(serial=0xFFFFFFFF), "fine"),
]

BEFORE_OPEN = [
    *(
        Row(f"procedure {number} before open", _odd(number), _NOT_OPEN, opened=False)
        for number in (3, 4, wire.GET_HOSTNAME, 6, 7, wire.CLOSE_CALLBACK)
    ),
    Row("open without a name", _odd(1, b"\0" * 8), _internal("connection not open"), opened=False),
    Row(
        "open of a driver that is not there",
        _odd(1, _openArguments(b"foo:///x")),
        WireError(5, 0, 2, "no connection driver available for foo:///x"),
        opened=False,
    ),
    Row(
        "open with unknown flags",
        _odd(1, wire.OPEN_ARGUMENTS[:-4] + b"\0\0\0\6"),
        "fine",
        opened=False,
    ),
    Row(
        "open without asking for anything first", _odd(1, wire.OPEN_ARGUMENTS), "fine", opened=False
    ),
    Row("open twice", _odd(1, wire.OPEN_ARGUMENTS), _internal("connection already open")),
    Row(
        "a feature other than keepalive before open",
        _odd(wire.SUPPORTS_FEATURE, b"\0\0\0\x0e"),
        _NOT_OPEN,
        opened=False,
    ),
    Row("close before open", _odd(wire.CLOSE), "goodbye", opened=False),
    Row("close", _odd(wire.CLOSE), "goodbye"),
]

ARGUMENTS = [
    Row("feature without its number", _odd(wire.SUPPORTS_FEATURE), _UNDECODABLE),
    Row("feature with half a number", _odd(wire.SUPPORTS_FEATURE, b"\0\0"), _UNDECODABLE),
    Row("open without arguments", _odd(1), _UNDECODABLE, opened=False),
    Row("open without flags", _odd(1, wire.OPEN_ARGUMENTS[:-4]), _UNDECODABLE, opened=False),
    Row("a string longer than its message", _odd(1, b"\0\0\0\1\0\0\0\x40abcd"), _UNDECODABLE),
    Row("a string of 4 GiB", _odd(1, b"\0\0\0\1\xff\xff\xff\xff"), _UNDECODABLE),
    Row(
        "a string one byte over the limit",
        _odd(1, _openArguments(b"x" * (_LONGEST_STRING + 1))),
        _UNDECODABLE,
    ),
    Row(
        "an optional that is neither 0 nor 1",
        _odd(1, b"\0\0\0\2" + wire.OPEN_ARGUMENTS[4:]),
        _internal("connection already open"),
    ),
    Row("arguments where there are none", _odd(payload=b"trailing"), "fine"),
    Row(
        "more arguments than there are", _odd(wire.SUPPORTS_FEATURE, b"\0\0\0\x0atrailing"), "fine"
    ),
    Row(
        "padding that is not zero",
        _odd(1, struct.pack(">II", 1, 14) + b"test:///defaul\xff\xff" + b"\0\0\0\0"),
        _internal("connection already open"),
    ),
    Row("a feature nobody knows", _odd(wire.SUPPORTS_FEATURE, b"\0\0\x27\x0f"), "fine"),
]

KEEPALIVE = [
    Row("a ping", wire.PING, "pong"),
    Row("a ping as the first message", wire.PING, "pong", opened=False),
    Row(
        "a ping with a serial, a status and a payload",
        _odd(1, b"abcd", program=wire.KEEPALIVE, kind=2, status=1),
        "pong",
    ),
    Row("a pong nobody asked for", wire.PONG, "ignored"),
    Row("a pong as the first message", wire.PONG, "ignored", opened=False),
    Row(
        "an unknown keepalive procedure",
        _odd(3, program=wire.KEEPALIVE, kind=2),
        "ignored",
    ),
    Row(
        "a ping as a call",
        _odd(1, program=wire.KEEPALIVE),
        _rpc(f"Cannot find program {wire.KEEPALIVE} version 1"),
    ),
    Row("a ping of version 2", _odd(1, program=wire.KEEPALIVE, version=2, kind=2), "ignored"),
]
