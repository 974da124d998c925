"""
The websockets package's server on asyncio, with C{ping_interval}.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def stay(connection: ServerConnection) -> None:
    """
    Keep a connection until its peer leaves.

    @param connection: the connection.
    """
    await connection.wait_closed()


async def main(port: int, interval: float, count: int) -> None:
    """
    Serve until the process is stopped.

    @param port: the port to listen on, on the loopback address.
    @param interval: seconds between pings.
    @param count: the number of intervals without a pong after which a peer is dead.
    """
    server = await serve(
        stay,
        "127.0.0.1",
        port,
        ping_interval=interval,
        ping_timeout=interval * count,
        open_timeout=60,
        compression=None,
        backlog=4096,
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
