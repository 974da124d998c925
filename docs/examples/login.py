"""
Log in to a server that requires a password.

Usage: login.py qemu+tls://host.example.org/system alice, with the password on standard input
"""

from __future__ import annotations

import sys

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from kaproto.client import Login, connect


async def main(reactor: IReactorTime, uri: str, user: str) -> None:
    """
    Log in, and ask for the host's name.
    """
    password = sys.stdin.readline().rstrip("\n")
    connection = await connect(reactor, uri, login=Login(user, password))
    print(await connection.hostname())
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
