"""
The list of a server's clients in C{virt-admin}'s format: an array of their names, then its length.

With thousands of clients, a list is packed in several turns of the reactor, and the lists of
several processes are joined without decoding them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from kaproto.admin.parameters import clientName
from kaproto.admin.types import ServerName
from kaproto.records.wallclock import WallClock
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.wire.structs import pack
from kaproto.wire.xdr import ARRAY_MAX, Packer, Unpacker

__all__ = ["joinCounts", "joinLists", "packCount", "packList"]

_WORD: Final = 4
"""
The size of a length, in bytes.
"""


def packList(
    server: ServerName,
    clients: Iterable[ServerConnection],
    wallClock: WallClock,
    cooperator: Cooperator,
) -> Deferred[bytes]:
    """
    @param clients: at most L{ARRAY_MAX} clients of this server.
    @param cooperator: splits the work over turns of the reactor.
    @return: the packed list.
    """
    names: list[bytes] = []

    def add(client: ServerConnection) -> None:
        names.append(pack(clientName(server, client, wallClock)))

    return cooperator.coiterate(map(add, clients)).addCallback(
        lambda _: _framed(len(names), b"".join(names))
    )


def packCount(count: int) -> bytes:
    """
    @return: the packed list for an administrator who asks only for the number of clients.
    """
    return Packer().uint32(0).uint32(count).packed()


def joinLists(lists: Iterable[bytes]) -> bytes:
    """
    @param lists: packed lists of one server, from several processes.
    @return: one list of at most L{ARRAY_MAX} clients from all of them.
    """
    total, parts = 0, []
    for each in lists:
        names, count = each[_WORD:-_WORD], _countOf(each)
        if count:
            # All names of one server's clients have the same size.
            fit = min(count, ARRAY_MAX - total)
            parts.append(names[: len(names) // count * fit])
            total += fit
    return _framed(total, b"".join(parts))


def joinCounts(lists: Iterable[bytes]) -> bytes:
    """
    @param lists: results of L{packCount}.
    @return: the packed list with the sum of their counts.
    """
    return packCount(sum(map(_countOf, lists)))


def _countOf(packed: bytes) -> int:
    return Unpacker(packed[-_WORD:]).uint32()


def _framed(count: int, names: bytes) -> bytes:
    length = Packer().uint32(count).packed()
    return length + names + length
