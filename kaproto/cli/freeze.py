"""
C{kaproto ping --freeze}: stops answering, as a stopped process does, and prints the server's
reaction.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from kaproto.cli.command import ExitCode
from kaproto.client import KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.rpc.protocol import connectionOf
from kaproto.wire.message import MessageReader
from kaproto.wire.programs import KEEPALIVE_PROGRAM

__all__ = ["freeze"]


async def freeze(
    reactor: IReactorTime, connection: KeepAliveClientProtocol, write: Callable[[str], object]
) -> int:
    """
    Stop answering, and report what the server sends until it closes the connection.

    @param write: prints a line.
    @return: the exit code.
    """
    began = reactor.seconds()
    reader = MessageReader()
    machinery = connectionOf(connection, ClientConnection)

    def tell(text: str) -> None:
        write(f"{reactor.seconds() - began:7.2f} s  {text}")

    def received(data: bytes) -> None:
        reader.feed(data)
        while (message := reader.next()) is not None:
            if message.program == KEEPALIVE_PROGRAM:
                tell("the server pings")
            else:
                machinery.messageReceived(message)

    tell("this client answers no more")
    # To the server this looks like a stopped process, whose bytes only the kernel receives.
    connection.dataReceived = received  # type: ignore[method-assign]
    try:
        reason = await connection.whenClosed()
    except CancelledError:
        tell("interrupted before the server closed the connection")
        return ExitCode.FAILED
    tell(str(reason))
    return ExitCode.OK
