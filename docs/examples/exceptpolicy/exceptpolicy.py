"""
A policy of one's own: mandatory keepalive, except for clients from some networks.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

import attrs

from kaproto import KeepAlive
from kaproto.interfaces import ADMITTED, Admission, Peer, Refused
from kaproto.policies import Policy, refusalFor


@attrs.frozen
class Except(Policy):
    """
    Refuses clients without keepalive, unless they are in one of the networks.
    """

    name = "except"
    description = "like mandatory, but let clients from these networks in unwatched"
    argumentFormat = "NETWORK[,NETWORK]..."

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Self:
        """
        Take the networks from the command line.
        """
        if not argument:
            raise ValueError("which networks? for example except:192.0.2.0/24")
        networks = tuple(ip_network(each) for each in argument.split(","))
        return attrs.evolve(self, terms=keepAlive, networks=networks)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Decide when the client opens.
        """
        if peer.asked:
            return ADMITTED
        if peer.host and any(ip_address(peer.host) in network for network in self.networks):
            return Admission("it did not ask for keepalive, and its network is excepted")
        return Refused(refusalFor(peer))
