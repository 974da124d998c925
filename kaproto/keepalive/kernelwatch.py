"""
Watches peers that cannot be pinged, through the kernel.

The kernel's own keepalive detects a dead host while no segments are in flight.  While segments are
in flight, Linux sends no probes, so this module checks the kernel's delivery counters once an
interval.  If segments are in flight at every check and none is acknowledged, the host is gone.  For
example, at interval 2 and count 2, with the link cut in the middle of a download:

 - 0 s: 10 segments in flight, 5,000 bytes acknowledged; one second later the link is cut.
 - 2, 4, 6 s: 12 in flight, 6,000 acknowledged.
 - 8 s: still the same, for C{interval * (count + 1)} seconds: the host is gone.

A peer that does not read has a full receive window and nothing in flight: its host is alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from kaproto.errors import DeliveryTimeout
from kaproto.keepalive.kernel import Delivery, delivery, setKernelKeepAlive
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import Pacemaker
from kaproto.transport import StreamTransport

__all__ = ["CHOICES", "KernelWatch", "TCPKeepAlive", "Unacknowledged"]

CHOICES: Final = ("auto", "on", "off")
"""
The values of L{TCPKeepAlive.which}.
"""


@attrs.frozen
class TCPKeepAlive:
    """
    Which peers the kernel watches, over TCP and TLS.

    @ivar which: C{"auto"} for peers that should be pinged but cannot be, because they did not ask
        for keepalive or do not support it; C{"on"} for all; C{"off"} for none.
    @ivar terms: the interval and count for peers without their own.
    @raise ValueError: when C{which} is something else.
    """

    which: str = attrs.field(default="auto", validator=attrs.validators.in_(CHOICES))
    terms: KeepAlive = KeepAlive()

    def termsFor(self, own: KeepAlive | None, *, pinged: bool) -> KeepAlive | None:
        """
        @param own: the interval and count for pinging the peer; C{None} for no pings.
        @param pinged: whether it is pinged.
        @return: the interval and count for the kernel's keepalive; C{None} for none.
        """
        if own is not None and not own.enabled:
            own = None
        if self.which == "auto":
            return None if pinged else own
        if self.which == "off":
            return None
        return own or self.terms


class Unacknowledged:
    """
    Measures for how long a peer's host has acknowledged none of the segments in flight.

    This class reads no clock and no socket.
    """

    __slots__ = ("_acknowledged", "_since")

    def __init__(self) -> None:
        self._acknowledged: int | None = None
        self._since = 0.0

    def looked(self, now: float, found: Delivery | None) -> float:
        """
        Record another check.

        @param found: the kernel's counters, C{None} if there are none.
        @return: seconds since the first check of the current run: checks that all found segments in
            flight and the same number of acknowledged bytes.
        """
        if found is None or not found.inFlight:
            self._acknowledged = None
            return 0
        if found.acknowledged != self._acknowledged:
            self._acknowledged = found.acknowledged
            self._since = now
        return now - self._since


class KernelWatch:
    """
    Turns on the kernel's keepalive for one peer, and reads its counters once an interval.

    @ivar slot: see L{kaproto.keepalive.pacemaker.Watched}.
    @ivar exact: see L{kaproto.keepalive.pacemaker.Watched}.
    """

    __slots__ = (
        "_died",
        "_keepAlive",
        "_pacemaker",
        "_transport",
        "_unacknowledged",
        "exact",
        "slot",
    )

    def __init__(
        self,
        transport: StreamTransport,
        keepAlive: KeepAlive,
        pacemaker: Pacemaker,
        died: Callable[[DeliveryTimeout], object],
    ) -> None:
        """
        @param died: called once when the peer's host is gone while segments are in flight.  While
            none are, the kernel ends the connection itself, and the transport is lost.
        """
        self.slot = -1
        self.exact = False
        self._transport = transport
        self._keepAlive = keepAlive
        self._pacemaker = pacemaker
        self._died: Callable[[DeliveryTimeout], object] | None = died
        self._unacknowledged = Unacknowledged()

    def start(self) -> bool:
        """
        @return: whether the peer is watched: the connection is TCP and the kernel took all options.
        """
        if not setKernelKeepAlive(self._transport, self._keepAlive):
            return False
        self._pacemaker.watch(self, self._pacemaker.now + self._keepAlive.interval)
        return True

    def stop(self) -> None:
        """
        Stop watching, and drop the reference to the protocol.
        """
        self._pacemaker.forget(self)
        self._died = None

    def due(self, now: float, /) -> float | None:
        """
        Called by the pacemaker after each interval.

        @return: the time of the next call; C{None} for never.
        """
        interval, count = self._keepAlive.interval, self._keepAlive.count
        waited = self._unacknowledged.looked(now, delivery(self._transport))
        if waited < interval * (count + 1):
            return now + interval
        if self._died is not None:
            self._died(DeliveryTimeout(interval, count, waited))
        return None

    def sendPing(self) -> None:
        """
        Do nothing: such a peer cannot be pinged.
        """
