"""
Backpressure on a client that sends calls faster than they are answered, or faster than it reads the
replies.
"""

from __future__ import annotations

from kaproto.peer import Peer
from kaproto.rpc.dispatch import Calls
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.phaselimits import PhaseLimits
from kaproto.rpc.reading import Pause, Reading

__all__ = ["Backpressure"]


class Backpressure:
    """
    Holds back one client's calls.

    Unread replies pile up in memory, so the client's calls wait until it has caught up.  When too
    many calls wait, nothing more is read from the client.  Then its silence proves nothing, so it
    gets a deadline for reading its replies.
    """

    __slots__ = ("_calls", "_limits", "_outgoing", "_peer", "_reading")

    def __init__(
        self, calls: Calls, reading: Reading, outgoing: Outgoing, limits: PhaseLimits, peer: Peer
    ) -> None:
        self._calls = calls
        self._reading = reading
        self._outgoing = outgoing
        self._limits = limits
        self._peer = peer

    def pause(self) -> None:
        """
        The queue of calls is full: read no more calls.
        """
        if not self._reading.pauses & Pause.CALLS:
            self._reading.pause(Pause.CALLS, asked=self._peer.asked)
            if self._outgoing.congested:
                self._limits.awaitReading()

    def resume(self) -> None:
        """
        A call was answered: resume reading if the queue has room.
        """
        if not self._calls.full:
            self._reading.resume(Pause.CALLS)

    def answeredElsewhere(self) -> None:
        """
        A relay has answered a call.
        """
        if self._outgoing.congested:
            self.pause()

    def congestionBegan(self) -> None:
        """
        The client is behind with reading replies: let its calls wait.
        """
        self._calls.hold()
        if self._reading.pauses & Pause.CALLS:
            self._limits.awaitReading()

    def congestionEnded(self) -> None:
        """
        The client has caught up with reading: start its calls again.
        """
        if self._reading.pauses & Pause.CALLS:
            self._limits.hasRead()
        self._calls.proceed()
