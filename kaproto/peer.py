"""
What is known of the other end of a connection: all that a policy can go by.
"""

from __future__ import annotations

from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address, ip_network

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["Peer", "UnixCredentials"]


@attrs.frozen
class UnixCredentials:
    """
    Who connected to a UNIX socket, by the kernel's word (C{SO_PEERCRED}).

    @ivar pid: the process that connected; it may have ended since.
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

    @ivar address: where it connected from.
    @ivar transport: C{"tcp"}, C{"tls"} or C{"unix"}.
    @ivar asked: whether it has asked for the keepalive feature, by which it says that it answers
        pings.
    @ivar tlsDN: the distinguished name in its TLS certificate, in libvirt's form.
    @ivar tlsFingerprint: the SHA-256 of its TLS certificate, in hexadecimal.
    @ivar user: the name it authenticated as through SASL.
    @ivar unixCredentials: who it is on a UNIX socket.
    @ivar id: the number of its connection on this server, from 1, never used again; 0 for none.
    @ivar connectedAt: when it connected, in monotonic seconds.
    @ivar requested: what it asked to open, as L{kaproto.interfaces.OpenRequest} names it; C{None}
        until then.
    @ivar readOnly: whether what it has open must not be changed through it.
    @ivar rule: which of the policy's rules admitted it, if the policy has rules.
    """

    address: IAddress | None = None
    transport: str = "tcp"
    asked: bool = False
    tlsDN: str | None = None
    tlsFingerprint: str | None = None
    user: str | None = None
    unixCredentials: UnixCredentials | None = None
    id: int = 0
    connectedAt: float = 0.0
    requested: str | None = None
    readOnly: bool = False
    rule: str | None = None

    @property
    def host(self) -> str | None:
        """
        The peer's IP address, where it has one.
        """
        if isinstance(self.address, IPv4Address | IPv6Address):
            return self.address.host
        return None

    @property
    def network(self) -> str:
        """
        Whom limits are counted for: an IPv4 address, an IPv6 network of 64 bits, which one host may
        use as it likes, or a user of this machine.
        """
        if self.host is not None:
            address = ip_address(self.host)
            if not isinstance(address, IPv6):
                return str(address)
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ip_network((int(address), 64), strict=False))
        if self.unixCredentials is not None:
            return f"uid {self.unixCredentials.uid}"
        return self.transport

    @property
    def secure(self) -> bool:
        """
        Whether nobody but the peer and this machine can read what they say to each other.
        """
        return self.transport in ("tls", "unix")

    def __str__(self) -> str:
        """
        The peer as log lines name it.
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
        if self.tlsDN is not None:
            parts.append(f"dn={self.tlsDN!r}")
        if self.user is not None:
            parts.append(f"user={self.user!r}")
        return " ".join(parts)
