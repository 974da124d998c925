"""
The changes of a worker's clients, for the parent that lists them in a registry.

A change is recorded as the client's number only.  So there are never more records than clients that
are connected or that the parent knows.  The parent asks for changes, and gets current
descriptions::

    clients 4 and 6 connect, 6 ends     ->  recorded: 4
    the parent asks                     ->  [4: described]
    8 connects, 4 opens, 4 ends         ->  recorded: 8, 4
    the parent asks                     ->  [8: described, 4: ended]
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import attrs

from kaproto.registry.interfaces import Node
from kaproto.registry.schema import encode
from kaproto.wire.structs import UHyper

__all__ = ["BATCH", "Change", "ChangeList", "Changes"]

BATCH: Final = 200
"""
The most changes in one answer: describing so many clients takes a few milliseconds.
"""


@attrs.frozen
class Change:
    """
    A client that has connected, changed or ended.

    @ivar number: the number of its connection.
    @ivar client: its description, as a JSON object; C{None} if it has ended.
    """

    number: UHyper
    client: str | None


@attrs.frozen
class ChangeList:
    """
    The next changes, at most L{BATCH}.
    """

    changes: list[Change]


class Changes:
    """
    The clients that have changed since the parent last fetched them; at first, all clients.
    """

    def __init__(self, node: Node) -> None:
        """
        @param node: the server of this process.
        """
        self._node = node
        self._told: set[int] = set()
        node.follow(self._note)
        self._noted = dict.fromkeys(node.numbers())

    def _note(self, number: int) -> None:
        if number in self._told or number in self._node.numbers():
            self._noted[number] = None
        else:
            self._noted.pop(number, None)

    def take(self) -> list[Change]:
        """
        @return: the next changes, at most L{BATCH}.  They are removed from the records.
        """
        numbers = list(islice(self._noted, BATCH))
        return [self._take(number) for number in numbers]

    def _take(self, number: int) -> Change:
        del self._noted[number]
        client = self._node.client(number)
        if client is None:
            self._told.discard(number)
            return Change(number, None)
        self._told.add(number)
        return Change(number, encode(client))
