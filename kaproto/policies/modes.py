"""
The three modes: disable, optional and mandatory.

Each is a plugin that provides L{IKeepAlivePolicy}, like any other policy.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.arguments import checkType
from kaproto.interfaces import ADMITTED, Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies.conditions import exceptionFor

__all__ = ["MODES", "Disable", "Mandatory", "Optional", "Policy", "refusalFor"]


def refusalFor(peer: Peer) -> str:
    """
    @return: the error for a client that did not ask for mandatory keepalive: the problem, and the
        remedies for an administrator and for a programmer.  It has 300 characters at most, because
        some tools print it twice, and begins like libvirt's messages for error code 9.
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
    A base class for policies.  It advertises keepalive, pings each peer that asked for it, admits
    every peer, and takes no argument.

    @ivar terms: the interval and count for peers that are pinged.
    """

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    argumentFormat: ClassVar[str] = ""

    terms: KeepAlive = KeepAlive()

    def __attrs_post_init__(self) -> None:
        """
        @raise TypeError: when C{terms} has a wrong type.
        """
        checkType("terms", self.terms, KeepAlive)

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Self:
        """
        @return: a copy with this interval and count.
        @raise ValueError: when there is an argument.
        """
        if argument is not None:
            raise ValueError(f"{self.name} takes no argument, but {argument!r} was given")
        return attrs.evolve(self, terms=keepAlive)

    def advertises(self, peer: Peer) -> bool:
        """
        @return: C{True}.
        """
        return True

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        @return: L{terms}.
        """
        return self.terms

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: L{ADMITTED}.
        """
        return ADMITTED


class Disable(Policy):
    """
    Mode 0: the server never pings clients.  It still answers their pings.
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
    Mode 1: clients that asked are pinged, others are admitted with a warning.
    """

    name = "optional"
    description = "mode 1: ping clients that asked for keepalive; admit others too"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: admission, with a warning if mode 2 would refuse the client.
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
        @return: admission if the client asked, else a refusal.
        """
        return ADMITTED if peer.asked else Refused(refusalFor(peer))


MODES: Final[tuple[Policy, ...]] = (Disable(), Optional(), Mandatory())
"""
The policies by their numbers.
"""
