"""
Run with C{python more_calls.py URI}: call procedures that C{Connection} has no method for.
"""

from __future__ import annotations

import sys

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from kaproto.client import Call, DomainName, Nothing, connect, nothingElse


@attrs.frozen
class LookupByID:
    """
    The arguments of C{DOMAIN_LOOKUP_BY_ID}.
    """

    id: int


IS_SECURE = Call(149, Nothing, bool)
LOOKUP_BY_ID = Call(22, LookupByID, DomainName)
GET_AUTOSTART = Call(15, nothingElse, bool)


async def main(reactor: IReactorTime, uri: str) -> None:
    """
    Make some calls.
    """
    connection = await connect(reactor, uri)
    secure = await connection.perform(IS_SECURE)
    domain = await connection.perform(LOOKUP_BY_ID, id=1)
    autostart = await connection.perform(GET_AUTOSTART, domain)
    print(f"secure: {secure}, {domain.name} starts by itself: {autostart}")
    await connection.close()


react(main, sys.argv[1:])
