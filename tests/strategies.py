"""
Hypothesis strategies for numbers, strings, messages and streams of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from kaproto.errors import RemoteError
from kaproto.keepalive.liveness import INTERVAL_MAX, KeepAlive
from kaproto.wire.message import HEADER_SIZE, Message
from kaproto.wire.xdr import ParameterType, TypedParameter

__all__ = [
    "INT32",
    "INT64",
    "UINT32",
    "UINT64",
    "errors",
    "garbage",
    "keepAlives",
    "messages",
    "parameters",
    "pieces",
    "texts",
]

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def texts() -> st.SearchStrategy[str]:
    """
    Strings from peers: UTF-8, or bytes that are not valid UTF-8.
    """
    return st.text(max_size=40) | st.binary(max_size=40).map(_decoded)


def parameters() -> st.SearchStrategy[TypedParameter]:
    """
    Typed parameters of every type.
    """
    values: dict[ParameterType, st.SearchStrategy[bool | int | float | str]] = {
        ParameterType.INT: INT32,
        ParameterType.UINT: UINT32,
        ParameterType.LLONG: INT64,
        ParameterType.ULLONG: UINT64,
        ParameterType.DOUBLE: st.floats(allow_nan=False),
        ParameterType.BOOLEAN: st.booleans(),
        ParameterType.STRING: texts(),
    }
    return st.one_of(
        [st.builds(TypedParameter, texts(), value, st.just(kind)) for kind, value in values.items()]
    )


def messages() -> st.SearchStrategy[Message]:
    """
    Messages with arbitrary numbers in their headers.
    """
    return st.builds(Message, UINT32, UINT32, INT32, UINT32, UINT32, INT32, st.binary(max_size=60))


def errors() -> st.SearchStrategy[RemoteError]:
    """
    Errors with arbitrary numbers, and any text but the empty one, which is decoded as "Unknown
    error".
    """
    return st.builds(RemoteError, INT32, INT32, texts().filter(bool), INT32)


def keepAlives() -> st.SearchStrategy[KeepAlive]:
    """
    All valid intervals and counts, zeros included.
    """
    interval = st.integers(0, INTERVAL_MAX) | st.floats(0, INTERVAL_MAX)
    return st.builds(KeepAlive, interval, st.integers(0, 1000))


def _framed(data: bytes) -> bytes:
    return (len(data) + 4).to_bytes(4, "big") + data


def garbage() -> st.SearchStrategy[bytes]:
    """
    Streams of valid, nearly valid and invalid messages.
    """
    frame = st.binary(max_size=2 * HEADER_SIZE).map(_framed)
    return st.lists(frame | st.binary(max_size=2 * HEADER_SIZE), max_size=6).map(b"".join)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> Sequence[bytes]:
    """
    The same bytes, split at arbitrary places; some pieces may be empty.
    """
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]
