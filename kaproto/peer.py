"""
The identity of a connection's other end, for policies, logs and limits.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["Network", "Peer", "UnixCredentials", "parseAddress", "parseNetwork"]

Network = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def parseAddress(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """
    @param text: an IP address, with or without a zone such as C{%eth0}.
    @return: the address without its zone.  An IPv4 address in IPv6 form, C{::ffff:192.0.2.1}, is
        an IPv4 address.
    @raise ValueError: when it is not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def parseNetwork(text: str) -> Network:
    """
    @param text: a network such as C{10.0.0.0/8}, or one address.
    @return: the network.  A network of IPv4 addresses in IPv6 form, C{::ffff:10.0.0.0/104}, is
        the IPv4 network C{10.0.0.0/8}, as in L{parseAddress}.
    @raise ValueError: when it is not a network; the message says why.
    """
    base, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdecimal()):
        raise ValueError(f"{text!r} is not a network: write the number of bits after the slash")
    if "%" in base:
        raise ValueError(
            f"{text!r} is not a network: leave out the zone, %{base.partition('%')[2]}"
        )
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(_explain(text, error)) from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        bits = network.prefixlen - _MAPPED.prefixlen
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, bits))
    return network


def _explain(text: str, error: ValueError) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is not a network, such as 10.0.0.0/8 or fd00::/8: {error}"
    return f"{text!r} is an address in a network; the network is {meant}"


@attrs.frozen
class UnixCredentials:
    """
    The process that connected to a UNIX socket, from the kernel (C{SO_PEERCRED}).

    @ivar pid: its process id.  The process may have ended since.
    @ivar uid: its user.
    @ivar gid: its group.
    """

    pid: int
    uid: int
    gid: int


@attrs.define
class Peer:
    """
    The other end of a connection.

    @ivar address: its address.
    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar asked: whether it has asked for the keepalive feature, and so promised to answer pings.
    @ivar tlsDN: the distinguished name in its TLS certificate, in libvirt's form.
    @ivar tlsFingerprint: the SHA-256 of its TLS certificate, in hexadecimal.
    @ivar commonName: the common name in the certificate that a load balancer has verified, if it
        terminates TLS.  It is not an identity: two authorities may issue the same name to different
        people.
    @ivar user: the name it logged in with (SASL).
    @ivar unixCredentials: its process and user, on a UNIX socket.
    @ivar program: the name of its program, on a UNIX socket (the kernel's C{comm}, up to 15
        bytes); C{None} if it is not known.  A program can give itself any name.
    @ivar id: the number of its connection on this server, from 1, never reused; 0 for none.
    @ivar connectedAt: when it connected, in monotonic seconds.
    @ivar requested: the name that it asked to open, as in L{kaproto.interfaces.OpenRequest};
        C{None} before that.
    @ivar opened: whether it has opened.
    @ivar readOnly: whether its connection is read-only, because the peer asked for that, or its
        listener or the policy requires it.
    @ivar rule: the policy's rule that admitted it, if the policy has rules.
    """

    address: IAddress | None = None
    transport: str = "tcp"
    asked: bool = False
    tlsDN: str | None = None
    tlsFingerprint: str | None = None
    commonName: str | None = None
    user: str | None = None
    unixCredentials: UnixCredentials | None = None
    program: str | None = None
    id: int = 0
    connectedAt: float = 0.0
    requested: str | None = None
    opened: bool = False
    readOnly: bool = False
    rule: str | None = None

    @property
    def host(self) -> str | None:
        """
        The peer's IP address, if it has one.
        """
        if isinstance(self.address, IPv4Address | IPv6Address):
            return self.address.host
        return None

    @property
    def network(self) -> str:
        """
        The unit to which limits apply: an IPv4 address; an IPv6 network of 64 bits, since one host
        can use all its addresses; or a user of this machine.
        """
        if isinstance(self.address, IPv4Address):
            return self.address.host
        if self.host is not None:
            address = parseAddress(self.host)
            if isinstance(address, ipaddress.IPv4Address):
                return str(address)
            return str(ipaddress.ip_network((int(address), 64), strict=False))
        if self.unixCredentials is not None:
            return f"uid {self.unixCredentials.uid}"
        return self.transport

    @property
    def secure(self) -> bool:
        """
        Whether the connection is encrypted or local, so that nobody on the network can read it.
        """
        return self.transport in ("tls", "unix")

    def __str__(self) -> str:
        """
        The peer's name in log lines.
        """
        match self.address:
            case IPv4Address(host=host, port=port):
                where = f"{host}:{port}"
            case IPv6Address(host=host, port=port):
                where = f"[{host}]:{port}"
            case UNIXAddress():
                where = "socket"
            case _:
                where = str(self.address)
        parts = [self.transport, where]
        if self.unixCredentials is not None:
            parts.append(f"pid={self.unixCredentials.pid} uid={self.unixCredentials.uid}")
            program = "unknown" if self.program is None else repr(self.program)
            parts.append(f"program={program}")
        if self.tlsDN is not None:
            parts.append(f"dn={self.tlsDN!r}")
        if self.commonName is not None:
            parts.append(f"cn={self.commonName!r}")
        if self.user is not None:
            parts.append(f"user={self.user!r}")
        return " ".join(parts)
