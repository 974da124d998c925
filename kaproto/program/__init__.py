"""
An application's own RPC programs, and the backend for a server that serves only these.
"""

from kaproto.program.backend import ApplicationBackend
from kaproto.program.procedures import procedure
from kaproto.program.program import Program
from kaproto.wire.programs import ErrorCode, ErrorDomain
from kaproto.wire.structs import Hyper, Limit, UHyper, UInt, pack, unpack
from kaproto.wire.xdr import Packer, PackError, TypedParameter, Unpacker, XDRError

__all__ = [
    "ApplicationBackend",
    "ErrorCode",
    "ErrorDomain",
    "Hyper",
    "Limit",
    "PackError",
    "Packer",
    "Program",
    "TypedParameter",
    "UHyper",
    "UInt",
    "Unpacker",
    "XDRError",
    "pack",
    "procedure",
    "unpack",
]
