"""
XDR (RFC 4506): the types that libvirt's RPC uses, read as leniently as libvirt reads them.

Each method of L{Packer} has its counterpart of the same name in L{Unpacker}, with the same limit.
"""

from kaproto.wire.xdr.packer import Packer
from kaproto.wire.xdr.types import (
    ARRAY_MAX,
    STRING_MAX,
    PackError,
    ParameterType,
    TypedParameter,
    XDRError,
)
from kaproto.wire.xdr.unpacker import Unpacker

__all__ = [
    "ARRAY_MAX",
    "STRING_MAX",
    "PackError",
    "Packer",
    "ParameterType",
    "TypedParameter",
    "Unpacker",
    "XDRError",
]
