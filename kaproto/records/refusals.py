"""
The callers that the policy refused, or that mode 2 would refuse.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from kaproto.peer import Peer
from kaproto.records.who import Caller

__all__ = ["CALLERS_MAX", "Refusal", "Refusals"]

CALLERS_MAX: Final = 1000
"""
The number of callers kept; those with the oldest refusals are forgotten first.
"""


@attrs.define
class Refusal:
    """
    The refusals of one caller.

    @ivar caller: the caller.
    @ivar refused: how often it was refused.
    @ivar wouldRefuse: how often it was admitted although mode 2 would have refused it.
    @ivar last: the time of the latest, in monotonic seconds.
    """

    caller: Caller
    refused: int = 0
    wouldRefuse: int = 0
    last: float = 0.0


class Refusals:
    """
    Refusals summed by caller.
    """

    def __init__(self) -> None:
        self._callers: OrderedDict[Caller, Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def __iter__(self) -> Iterator[Refusal]:
        """
        @return: the refusals of each caller, the latest first.
        """
        return reversed(self._callers.values())

    def add(self, peer: Peer, now: float, *, refused: bool) -> None:
        """
        Count a client that was refused, or admitted with a warning.

        @param now: in monotonic seconds.
        @param refused: whether it was refused.
        """
        caller = Caller.of(peer)
        entry = self._callers.setdefault(caller, Refusal(caller))
        self._callers.move_to_end(caller)
        if refused:
            entry.refused += 1
        else:
            entry.wouldRefuse += 1
        entry.last = now
        if len(self._callers) > CALLERS_MAX:
            self._callers.popitem(last=False)
