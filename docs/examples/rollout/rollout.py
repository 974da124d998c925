"""
A custom policy: keepalive becomes mandatory on a date.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Self

import attrs

from kaproto import KeepAlive
from kaproto.interfaces import ADMITTED, Admission, Peer, Refused
from kaproto.policies import Policy, refusalFor


@attrs.frozen
class Rollout(Policy):
    """
    Warns about clients without keepalive until the date, and refuses them from then on.
    """

    name = "rollout"
    description = "like optional until a date, like mandatory from then on"
    argumentFormat = "YYYY-MM-DD"

    start: date = date.max
    today: Callable[[], date] = date.today

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Self:
        """
        Take the date from the command line.
        """
        if not argument:
            raise ValueError("from which date? for example rollout:2027-03-01")
        return attrs.evolve(self, terms=keepAlive, start=date.fromisoformat(argument))

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Decide when the client opens.
        """
        if peer.asked:
            return ADMITTED
        if self.today() < self.start:
            return Admission(f"it did not ask for keepalive, which is mandatory from {self.start}")
        return Refused(refusalFor(peer))
