"""
Kills a server while clients are in every state, and starts it again.
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from tests.harness.attacks.honest import enter
from tests.harness.attacks.measure import fileCount
from tests.harness.attacks.rawsocket import RawPeer, watch
from tests.harness.attacks.resets import GATEWAY_STATES, STATES
from tests.harness.attacks.targets import KaTarget, LibvirtTarget, until

__all__ = ["Kill", "killOnce"]


class Kill(NamedTuple):
    """
    What was measured around a kill.

    @ivar clients: the number of clients.
    @ivar told: how many saw their connection end.
    @ivar seen: seconds until the last of them did.
    @ivar released: seconds until libvirtd had closed their connections.
    @ivar starting: seconds from starting the server again until it listened.
    @ivar served: seconds from then until a client was open.
    """

    clients: int
    told: int
    seen: float
    released: float
    starting: float
    served: float


def killOnce(
    target: KaTarget, clients: int, chance: random.Random, upstream: LibvirtTarget | None = None
) -> Kill:
    """
    Connect clients in all states, kill the server at a random moment while more connect, and start
    it again.

    @param upstream: the libvirtd behind the server.
    """
    resting = fileCount(upstream.pid) if upstream is not None else 0
    states = list((STATES if upstream is None else GATEWAY_STATES).values())
    crowd = []
    for number in range(clients):
        peer = RawPeer(target.address)
        states[number % len(states)](peer)
        crowd.append(peer)
    late = [RawPeer(target.address) for _ in range(clients // 5)]
    for peer in late:
        peer.sendCall(66)
    time.sleep(chance.random() * 0.05)
    crowd += late
    target.kill()
    begun = time.monotonic()
    watch(crowd, 5)
    told = [peer for peer in crowd if peer.ended is not None]
    seen = max((peer.endedAt - begun for peer in told), default=0.0)
    released = 0.0
    if upstream is not None:
        pid = upstream.pid
        until(lambda: fileCount(pid) <= resting, "libvirtd to be rid of them", 5)
        released = time.monotonic() - begun
    for peer in crowd:
        peer.socket.close()
    begun = time.monotonic()
    target.start()
    starting = time.monotonic() - begun
    begun = time.monotonic()
    enter(target.address, target.login, 5).socket.close()
    return Kill(len(crowd), len(told), seen, released, starting, time.monotonic() - begun)
