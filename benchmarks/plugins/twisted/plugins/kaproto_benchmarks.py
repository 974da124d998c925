"""
The policy C{benchmark-spread}: mode 2 with an interval of its own for each of a thousand peers.

Put the folder C{benchmarks/plugins} on C{PYTHONPATH} and C{twistd kaserver --mode=benchmark-spread}
finds it.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Mandatory


class Spread(Mandatory):
    """
    Intervals from three to five quarters of the one asked for, by the peer's port, so that the
    load generator can tell what each of its connections was given.
    """

    name = "benchmark-spread"
    description = "mode 2 with 1,000 different intervals, for the benchmarks"

    def keepAlive(self, peer: Peer) -> KeepAlive:
        """
        @return: the terms of this peer.
        """
        assert isinstance(peer.address, IPv4Address)
        part = 0.75 + peer.address.port % 1000 / 2000
        return KeepAlive(self.terms.interval * part, self.terms.count)


spread = Spread()
