"""
What callers of the ADMIN program are told when something cannot be done: libvirtd's codes and
words, where it has them.
"""

from __future__ import annotations

from kaproto.errors import RemoteError
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ErrorCode, ErrorDomain

__all__ = ["checkFlags", "invalid", "noClient", "noServer", "unsupported", "unsupportedParameter"]


def checkFlags(flags: int, function: str) -> None:
    """
    @param function: what was called.
    @raise RemoteError: when there are any flags, since there are none to give.
    """
    if flags:
        raise RemoteError(
            ErrorCode.INVALID_ARG,
            ErrorDomain.ADMIN,
            f"unsupported flags ({flags:#x}) in function {function}",
        )


def noServer(name: str) -> RemoteError:
    """
    There is no such server.
    """
    return rpcError(f"Server not found: No server named '{name}'", ErrorCode.NO_SERVER)


def noClient(number: int) -> RemoteError:
    """
    There is no such client, or there was.
    """
    return rpcError(f"Client not found: No client with matching ID '{number}'", ErrorCode.NO_CLIENT)


def invalid(problem: str) -> RemoteError:
    """
    An argument makes no sense.
    """
    return RemoteError(ErrorCode.INVALID_ARG, ErrorDomain.NONE, f"invalid argument: {problem}")


def unsupportedParameter(name: str) -> RemoteError:
    """
    A parameter does not exist, or cannot be set.
    """
    return RemoteError(
        ErrorCode.ARGUMENT_UNSUPPORTED,
        ErrorDomain.NONE,
        f"argument unsupported: parameter '{name}' not supported",
    )


def unsupported(reason: str) -> RemoteError:
    """
    libvirtd can do this, and kaserver has no use for it.
    """
    return RemoteError(
        ErrorCode.OPERATION_UNSUPPORTED, ErrorDomain.ADMIN, f"Operation not supported: {reason}"
    )
