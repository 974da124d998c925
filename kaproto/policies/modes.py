"""
The three modes: disable, optional, mandatory.

Each is an ordinary plugin behind L{IKeepAlivePolicy}, as anybody's may be.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.interfaces import ADMITTED, Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies.conditions import exceptionFor

__all__ = ["MODES", "Disable", "Mandatory", "Optional", "Policy", "refusalFor"]


def refusalFor(peer: Peer) -> str:
    """
    @return: what a client is told that did not ask for keepalive where that is mandatory, in at
        most 300 characters, since some tools print it twice.  The prefix is the one that libvirt
        puts before messages with code 9.
    """
    return (
        "operation failed: this server requires keepalive, which the client did not ask for before "
        f"opening. Administrator: exempt it with --except={exceptionFor(peer)}. "
        "Programmer: run libvirt's event loop (virEventRegisterDefaultImpl), or ask for feature 10 "
        "and answer pings."
    )


@implementer(IPlugin, IKeepAlivePolicy)
@attrs.frozen
class Policy:
    """
    A policy to subclass: it advertises keepalive, pings whoever asked for it, admits everybody
    and takes no argument.
    """

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    argumentFormat: ClassVar[str] = ""

    terms: KeepAlive = KeepAlive()

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Self:
        """
        See L{IKeepAlivePolicy.configured}.
        """
        if argument is not None:
            raise ValueError(f"{self.name} takes no argument, and {argument!r} was given")
        return attrs.evolve(self, terms=keepAlive)

    def advertises(self, peer: Peer) -> bool:
        """
        See L{IKeepAlivePolicy.advertises}.
        """
        return True

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        See L{IKeepAlivePolicy.keepAlive}.
        """
        return self.terms

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        See L{IKeepAlivePolicy.admit}.
        """
        return ADMITTED


class Disable(Policy):
    """
    Mode 0: the server never starts pinging, and still answers a client's pings.
    """

    name = "disable"
    description = "mode 0: never ping; answer the pings of clients (default)"

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        @return: C{None}.
        """
        return None


class Optional(Policy):
    """
    Mode 1: clients that asked are pinged, others are let in unwatched.
    """

    name = "optional"
    description = "mode 1: ping clients that asked for keepalive; let others in unwatched"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: admission, with a warning where mode 2 would refuse.
        """
        if peer.asked:
            return ADMITTED
        return Admission(
            "mode 2 would refuse this client: it did not ask for keepalive before opening"
        )


class Mandatory(Policy):
    """
    Mode 2: clients that asked are pinged, others are refused when they open.
    """

    name = "mandatory"
    description = "mode 2: ping clients that asked for keepalive; refuse others when they open"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: admission to those who asked, a refusal to others.
        """
        return ADMITTED if peer.asked else Refused(refusalFor(peer))


MODES: Final[tuple[Policy, ...]] = (Disable(), Optional(), Mandatory())
"""
The policies by their numbers.
"""
