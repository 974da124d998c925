"""
The policy C{benchmark-spread}: mode 2 with 1,000 different intervals.

To use it, put the folder C{benchmarks/plugins} on C{PYTHONPATH}, and start C{twistd kaserver
--mode=benchmark-spread}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Mandatory


class Spread(Mandatory):
    """
    Assigns intervals from 0.75 to 1.25 times the configured one.  The peer's port determines the
    interval, so the load generator knows the interval of each of its connections.
    """

    name = "benchmark-spread"
    description = "mode 2 with 1,000 different intervals, for the benchmarks"

    def keepAlive(self, peer: Peer) -> KeepAlive:
        """
        @return: the interval and count for this peer.
        """
        assert isinstance(peer.address, IPv4Address)
        part = 0.75 + peer.address.port % 1000 / 2000
        return KeepAlive(self.terms.interval * part, self.terms.count)


spread = Spread()
