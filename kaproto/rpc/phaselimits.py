"""
Enforces the limits of a client's phase.
"""

from __future__ import annotations

from typing import Final

from kaproto.rpc.closing import Closing
from kaproto.rpc.negotiation import Event, Phase, ServerNegotiation
from kaproto.rpc.shared import Shared
from kaproto.wire.message import MessageReader

__all__ = ["PhaseLimits"]

_ENDS_DEADLINE: Final = frozenset({Phase.OPENING, Phase.OPEN})


class PhaseLimits:
    """
    Limits the size of one client's messages, and the time for its next step.
    """

    __slots__ = ("_closing", "_negotiation", "_reader", "_shared")

    def __init__(
        self,
        negotiation: ServerNegotiation,
        reader: MessageReader,
        closing: Closing,
        shared: Shared,
    ) -> None:
        """
        @param shared: has the limits.
        """
        self._negotiation = negotiation
        self._reader = reader
        self._closing = closing
        self._shared = shared

    def advance(self, event: Event) -> None:
        """
        Change the phase, and apply the limits of the new one.
        """
        self._negotiation.advance(event)
        self.entered()

    def entered(self) -> None:
        """
        The phase has changed: set the message limit and the deadline of the new one.
        """
        negotiation, limits = self._negotiation, self._shared.limits
        self._reader.limit = negotiation.messageLimit(limits)
        deadline = negotiation.deadline(limits)
        if deadline is not None:
            self._closing.setDeadline(*deadline)
        elif negotiation.phase in _ENDS_DEADLINE:
            self._closing.clearDeadline()

    def awaitReading(self) -> None:
        """
        The client does not read the replies to its calls: set a deadline, unless it has a shorter
        one for its next step.
        """
        if not self._hasDeadline:
            self._closing.setDeadline(
                self._shared.limits.unreadTimeout, "it did not read the replies to its calls"
            )

    def hasRead(self) -> None:
        """
        The client has read the replies.
        """
        if not self._hasDeadline:
            self._closing.clearDeadline()

    @property
    def _hasDeadline(self) -> bool:
        return self._negotiation.deadline(self._shared.limits) is not None

    def hold(self) -> float:
        """
        The client waits for its turn to log in: stop its deadline until then.

        @return: the seconds left.
        """
        left = self._closing.timeLeft
        if self._negotiation.phase is Phase.AUTHENTICATING:
            self._closing.clearDeadline()
        return left

    def resume(self, left: float) -> None:
        """
        It is the client's turn to log in: start its deadline again.

        @param left: the seconds left.
        """
        deadline = self._negotiation.deadline(self._shared.limits)
        if self._negotiation.phase is Phase.AUTHENTICATING and self._closing.reason is None:
            assert deadline is not None, "logging in has a deadline"
            self._closing.setDeadline(left, *deadline[1:])
