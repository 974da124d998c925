"""
How a client opens a connection, without I/O: authenticate, ask for keepalive, open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from kaproto.errors import RemoteError
from kaproto.wire.programs import ErrorCode, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["negotiate", "registerCloseCallback"]

_AUTH_TYPES_MAX: Final = 20


async def negotiate(
    call: Callable[[int, bytes], Awaitable[bytes]],
    name: str | None,
    flags: int,
    authenticate: Callable[[list[int]], Awaitable[None]],
    *,
    ask: bool = True,
) -> bool:
    """
    Open a connection, as the client: authenticate, ask for keepalive, open.

    The first two steps are skipped if the server is too old to know their procedures.

    @param call: calls a procedure of the remote program.
    @param name: the name to open, as in L{OpenRequest<kaproto.interfaces.OpenRequest>}; C{None}
        to authenticate only.
    @param flags: the flags of C{CONNECT_OPEN}.
    @param authenticate: is called with the L{AuthType<kaproto.wire.programs.AuthType>}s that the
        server accepts, and authenticates by one of them.
    @param ask: whether to ask for keepalive.
    @return: whether the server supports keepalive, so that it may be pinged.
    @raise RemoteError: when the server refuses.
    """
    types: list[int] = []
    try:
        listed = Unpacker(await call(Procedure.AUTH_LIST, b""))
    except RemoteError as error:
        if not _isUnknownProcedure(error):
            raise
    else:
        types = listed.array(listed.int32, _AUTH_TYPES_MAX)
    await authenticate(types)
    supported = ask and await _supports(call, Feature.PROGRAM_KEEPALIVE)
    if name is not None:
        await call(Procedure.CONNECT_OPEN, Packer().optionalString(name).uint32(flags).packed())
    return supported


async def registerCloseCallback(call: Callable[[int, bytes], Awaitable[bytes]]) -> None:
    """
    Ask the server to send the reason before it closes the connection, if it supports that.

    @param call: calls a procedure of the remote program.
    """
    if await _supports(call, Feature.REMOTE_CLOSE_CALLBACK):
        with suppress(RemoteError):
            await call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK, b"")


async def _supports(call: Callable[[int, bytes], Awaitable[bytes]], feature: Feature) -> bool:
    asked = Packer().int32(feature).packed()
    try:
        return Unpacker(await call(Procedure.CONNECT_SUPPORTS_FEATURE, asked)).int32() != 0
    except RemoteError:
        return False


def _isUnknownProcedure(error: RemoteError) -> bool:
    return error.code == ErrorCode.RPC and error.message.startswith("unknown procedure")
