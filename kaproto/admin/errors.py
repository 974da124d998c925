"""
The errors of the ADMIN program, with libvirtd's codes and messages where libvirtd has them.
"""

from __future__ import annotations

from kaproto.errors import RemoteError
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ErrorCode, ErrorDomain

__all__ = ["checkFlags", "invalid", "noClient", "noServer", "unsupported", "unsupportedParameter"]


def checkFlags(flags: int, function: str) -> None:
    """
    @param function: the name of the called function.
    @raise RemoteError: when any flag is set, since none is supported.
    """
    if flags:
        raise RemoteError(
            ErrorCode.INVALID_ARG,
            ErrorDomain.ADMIN,
            f"unsupported flags ({flags:#x}) in function {function}",
        )


def noServer(name: str) -> RemoteError:
    """
    @return: the error for a server that does not exist.
    """
    return rpcError(f"Server not found: No server named '{name}'", ErrorCode.NO_SERVER)


def noClient(number: int) -> RemoteError:
    """
    @return: the error for a client that is not connected.
    """
    return rpcError(f"Client not found: No client with matching ID '{number}'", ErrorCode.NO_CLIENT)


def invalid(problem: str) -> RemoteError:
    """
    @return: the error for an invalid argument.
    """
    return RemoteError(ErrorCode.INVALID_ARG, ErrorDomain.NONE, f"invalid argument: {problem}")


def unsupportedParameter(name: str) -> RemoteError:
    """
    @return: the error for a parameter that does not exist or cannot be set.
    """
    return RemoteError(
        ErrorCode.ARGUMENT_UNSUPPORTED,
        ErrorDomain.NONE,
        f"argument unsupported: parameter '{name}' not supported",
    )


def unsupported(reason: str) -> RemoteError:
    """
    @return: the error for an operation that libvirtd supports and kaserver does not.
    """
    return RemoteError(
        ErrorCode.OPERATION_UNSUPPORTED, ErrorDomain.ADMIN, f"Operation not supported: {reason}"
    )
