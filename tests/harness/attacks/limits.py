"""
Attacks on servers at a limit: open files, clients, or the clients that the upstream accepts.
"""

from __future__ import annotations

import time
from collections import Counter

from tests.harness.attacks.rawsocket import Address, Outcome, RawPeer, watch
from tests.interop import wire

__all__ = ["crowd", "exhaust", "latecomers"]


def crowd(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Connect clients one after the other, which open if they can and stay.
    """
    inside: list[RawPeer] = []
    ends: Counter[str] = Counter()
    took = []
    for _ in range(peers):
        begun = time.monotonic()
        try:
            peer = RawPeer(address, timeout=5)
            peer.open(timeout=5)
        except OSError as problem:
            ends[f"{type(problem).__name__}: {problem}"] += 1
            took.append(time.monotonic() - begun)
        else:
            inside.append(peer)
    watch(inside, seconds)
    ends["let in"] = len([peer for peer in inside if peer.ended is None])
    ends["dropped"] = len(inside) - ends["let in"]
    return Outcome(peers, +ends, took)


def latecomers(address: Address, inside: int, late: int, seconds: float) -> Outcome:
    """
    Open some clients, then others at the same time, for which the upstream has no room.  None asks
    for keepalive.

    @param seconds: how long the late ones wait for an answer.
    """
    first = [RawPeer(address) for _ in range(inside)]
    for peer in first:
        peer.open(ask=False)
    ends: Counter[str] = Counter()
    took = []
    others = [RawPeer(address) for _ in range(late)]
    serials = [peer.sendCall(wire.OPEN, wire.OPEN_ARGUMENTS) for peer in others]
    begun = time.monotonic()
    for peer, serial in zip(others, serials, strict=True):
        left = max(0.1, begun + seconds - time.monotonic())
        try:
            error = peer.reply(serial, left).error
        except OSError as problem:
            ends[f"{type(problem).__name__}: {problem}"] += 1
        else:
            ends["let in" if error is None else error.message.partition(" (tcp")[0]] += 1
            took.append(time.monotonic() - begun)
    return Outcome(late, ends, took)


def exhaust(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Keep more connections open than the server may have files.  They are silent, and replaced when
    they are closed.
    """
    ends: Counter[str] = Counter()
    waiting: list[RawPeer] = []
    deadline = time.monotonic() + seconds
    took: list[float] = []
    while time.monotonic() < deadline:
        for _ in range(peers - len(waiting)):
            try:
                waiting.append(RawPeer(address, timeout=0.5))
            except OSError as problem:
                ends[type(problem).__name__] += 1
                break
        watch(waiting, 0.05)
        for peer in waiting:
            if peer.ended is not None:
                ends[peer.ended] += 1
                took.append(peer.endedAt - peer.begun)
                peer.socket.close()
        waiting = [peer for peer in waiting if peer.ended is None]
    ends["stays"] = len(waiting)
    return Outcome(sum(ends.values()), ends, took)
