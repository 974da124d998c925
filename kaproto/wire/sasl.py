"""
Arguments and results of the remote program's SASL procedures, C{AUTH_SASL_INIT},
C{AUTH_SASL_START} and C{AUTH_SASL_STEP}.

SASL distinguishes between no data (C{None} here) and empty data (C{b""}).  Each byte of data takes
four bytes in a message.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kaproto.wire.xdr import Packer, Unpacker, XDRError

__all__ = [
    "SASL_DATA_MAX",
    "SASLResult",
    "packMechanisms",
    "packResult",
    "packStart",
    "packStep",
    "unpackMechanisms",
    "unpackResult",
    "unpackStart",
    "unpackStep",
]

SASL_DATA_MAX: Final = 65536
"""
The most bytes of data in one step (C{REMOTE_AUTH_SASL_DATA_MAX}).
"""


class SASLResult(NamedTuple):
    """
    The server's answer to a step.

    @ivar complete: whether the client is authenticated.
    @ivar data: the mechanism's data; C{None} for none.
    """

    complete: bool
    data: bytes | None


def packMechanisms(names: list[str]) -> bytes:
    """
    @return: the result of C{AUTH_SASL_INIT}.
    """
    return Packer().string(",".join(names)).packed()


def unpackMechanisms(payload: bytes) -> list[str]:
    """
    @return: the names of the server's mechanisms.
    @raise XDRError: if the payload cannot be decoded.
    """
    return [name for name in Unpacker(payload).string().split(",") if name]


def packStart(mechanism: str, data: bytes | None) -> bytes:
    """
    @return: the arguments of C{AUTH_SASL_START}.
    @raise XDRError: if there is too much data.
    """
    return _packData(Packer().string(mechanism), data)


def unpackStart(payload: bytes) -> tuple[str, bytes | None]:
    """
    @return: the name of the mechanism, and its data.
    @raise XDRError: if the payload cannot be decoded.
    """
    unpacker = Unpacker(payload)
    return unpacker.string(), _unpackData(unpacker)


def packStep(data: bytes | None) -> bytes:
    """
    @return: the arguments of C{AUTH_SASL_STEP}.
    @raise XDRError: if there is too much data.
    """
    return _packData(Packer(), data)


def unpackStep(payload: bytes) -> bytes | None:
    """
    @return: the mechanism's data.
    @raise XDRError: if the payload cannot be decoded.
    """
    return _unpackData(Unpacker(payload))


def packResult(result: SASLResult) -> bytes:
    """
    @return: the result of C{AUTH_SASL_START} and C{AUTH_SASL_STEP}.
    @raise XDRError: if there is too much data.
    """
    return _packData(Packer().int32(result.complete), result.data)


def unpackResult(payload: bytes) -> SASLResult:
    """
    @raise XDRError: if the payload cannot be decoded.
    """
    unpacker = Unpacker(payload)
    return SASLResult(unpacker.int32() != 0, _unpackData(unpacker))


def _packData(packer: Packer, data: bytes | None) -> bytes:
    if data is not None and len(data) > SASL_DATA_MAX:
        raise XDRError(f"{len(data)} bytes of SASL data where {SASL_DATA_MAX} are allowed")
    given = b"" if data is None else data
    return packer.int32(data is None).uint32(len(given)).chars(given).packed()


def _unpackData(unpacker: Unpacker) -> bytes | None:
    absent = unpacker.int32() != 0
    count = unpacker.uint32()
    if count > SASL_DATA_MAX:
        raise XDRError(f"{count} bytes of SASL data where {SASL_DATA_MAX} are allowed")
    data = unpacker.chars(count)
    return None if absent else data
