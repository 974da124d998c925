"""
Measures an honest client, and newcomers beside it, during an attack.  They run in their own
processes.
"""

from __future__ import annotations

import select
import struct
import time
from functools import partial
from typing import NamedTuple

from tests.harness.attacks.rawsocket import Address, RawPeer
from tests.harness.attacks.workers import Worker
from tests.interop import wire

__all__ = ["Honest", "Login", "Report", "characters", "enter", "quantile"]

PERIOD = 0.1
"""
Seconds between two calls.
"""

PATIENCE = 3.0
"""
Seconds after which a newcomer counts as kept out.
"""

NEWCOMER_EVERY = 0.3
"""
Seconds between two newcomers.
"""

Login = tuple[str, str]
"""
A user name and a password.
"""


class Report(NamedTuple):
    """
    What the honest clients measured.

    @ivar calls: how many calls were answered.
    @ivar latencies: the seconds each took.
    @ivar begun: when each was made, on the monotonic clock.
    @ivar dropped: how often the connection was lost.
    @ivar newcomers: the seconds each newcomer needed to open.
    @ivar keptOut: how many newcomers did not open within L{PATIENCE} seconds.
    """

    calls: int
    latencies: list[float]
    begun: list[float]
    dropped: int
    newcomers: list[float]
    keptOut: int

    @property
    def alive(self) -> bool:
        """
        Whether no honest client was disconnected or kept out.
        """
        return not self.dropped and not self.keptOut


def quantile(values: list[float], part: float) -> float:
    """
    @param part: between 0 and 1, as 0.5 for the median.
    @return: that quantile of the values.
    """
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def characters(data: bytes) -> bytes:
    """
    @return: SASL data as an XDR array, as the remote program's messages have it.
    """
    return struct.pack(f">iI{len(data)}i", 0, len(data), *data)


def enter(address: Address, login: Login | None, timeout: float) -> RawPeer:
    """
    Connect, log in if necessary, and open.

    @return: the connection.
    """
    peer = RawPeer(address, timeout=timeout)
    if login is not None:
        peer.call(wire.AUTH_LIST, timeout=timeout)
        peer.call(67, timeout=timeout)
        name, password = login
        plain = characters(f"\0{name}\0{password}".encode())
        peer.call(68, wire.string("PLAIN") + plain, timeout)
    peer.open(timeout=timeout)
    return peer


class Honest:
    """
    A client that opens, makes a call every L{PERIOD} seconds and answers pings, and newcomers that
    open and leave.
    """

    def __init__(
        self, address: Address, login: Login | None = None, *, newcomers: bool = True
    ) -> None:
        """
        @param newcomers: whether there are newcomers.
        """
        self._old: Worker[_Lived] = Worker(partial(_stay, address, login))
        self._old.waitReady()
        self._new: Worker[_Felt] | None = None
        if newcomers:
            self._new = Worker(partial(_come, address, login))

    def stop(self) -> Report:
        """
        @return: the measurements so far.
        """
        latencies, begun, dropped = self._old.finish(30)
        entered, keptOut = ([], 0) if self._new is None else self._new.finish(PATIENCE + 5)
        return Report(len(latencies), latencies, begun, dropped, entered, keptOut)


_Felt = tuple[list[float], int]
_Lived = tuple[list[float], list[float], int]


def _stay(address: Address, login: Login | None, worker: Worker[_Lived]) -> _Lived:
    peer: RawPeer | None = enter(address, login, 10)
    latencies: list[float] = []
    times: list[float] = []
    dropped = 0
    worker.ready()
    due = time.monotonic()
    while not worker.told:
        try:
            if peer is None:
                peer = enter(address, login, PATIENCE)
            begun = time.monotonic()
            peer.call(wire.GET_HOSTNAME, timeout=30)
            latencies.append(time.monotonic() - begun)
            times.append(begun)
        except OSError:
            dropped += 1
            peer = None
        due = max(due + PERIOD, time.monotonic())
        while peer is not None and (left := due - time.monotonic()) > 0 and not worker.told:
            ends = [peer.socket.fileno(), worker.pipe.fileno()]
            if peer.socket.fileno() in select.select(ends, [], [], left)[0]:
                peer.takeIn()
                if peer.ended is not None:
                    dropped += 1
                    peer = None
    return latencies, times, dropped


def _come(address: Address, login: Login | None, worker: Worker[_Felt]) -> _Felt:
    entered: list[float] = []
    keptOut = 0
    while not worker.told:
        begun = time.monotonic()
        try:
            enter(address, login, PATIENCE).socket.close()
            entered.append(time.monotonic() - begun)
        except OSError:
            keptOut += 1
        worker.pipe.poll(NEWCOMER_EVERY)
    return entered, keptOut
