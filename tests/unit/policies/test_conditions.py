"""
Tests for L{kaproto.policies.conditions}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer
from kaproto.policies.conditions import (
    CONDITIONS,
    ConditionError,
    Conditions,
    exceptionFor,
    parseCondition,
)


def at(host: str) -> Peer:
    """
    @return: a peer at an address.
    """
    kind = IPv6Address if ":" in host else IPv4Address
    return Peer(kind("TCP", host, 1234))


LOCAL = Peer(UNIXAddress(""), "unix", program="virt-install")


class FitTests(SynchronousTestCase):
    """
    Tests that conditions match the right peers.
    """

    def test_words(self) -> None:
        """
        Each condition matches the peers that have such a value, and no others.
        """
        for text, fits, others in (
            (
                "network=10.0.0.0/8",
                [at("10.0.0.1"), at("::ffff:10.0.0.1")],
                [at("11.0.0.1"), at("::1"), at("::10.0.0.1"), LOCAL, Peer()],
            ),
            ("network=::ffff:10.0.0.0/104", [at("10.0.0.1")], [at("11.0.0.1")]),
            ("network=fe80::/10", [at("fe80::1%eth0")], [at("fd00::1"), at("10.0.0.1")]),
            ("transport=unix", [LOCAL], [at("10.0.0.1"), Peer(transport="tls")]),
            ("dn=*,CN=a", [Peer(tlsDN="O=x,CN=a")], [Peer(tlsDN="CN=a"), Peer()]),
            ("dn=CN=a", [Peer(tlsDN="CN=a")], [Peer(tlsDN="CN=ab")]),
            ("user=a*", [Peer(user="alice")], [Peer(user="bob"), Peer()]),
            ("user=a=b", [Peer(user="a=b")], [Peer(user="a")]),
            ("program=virt-install", [LOCAL], [Peer(program="virt-instal"), Peer()]),
            # These 15 bytes are not too long.
            ("program=virt-install-*0", [Peer(program="virt-install-10")], [LOCAL]),
            ("program=virt-*", [LOCAL, Peer(program="virt-clone")], [Peer(program="virsh")]),
        ):
            conditions = parseCondition(text)
            for peer in fits:
                self.assertTrue(conditions.fit(peer), (text, peer))
            for peer in others:
                self.assertFalse(conditions.fit(peer), (text, peer))

    def test_longPrograms(self) -> None:
        """
        Only 15 bytes of a program's name are compared, since the kernel keeps no more.
        """
        for name, comm in (
            ("prometheus-libvirt-exporter", "prometheus-libv"),
            ("exactly15bytes-", "exactly15bytes-"),
            ("überaus-lange-namen", "überaus-lange-"),
        ):
            conditions = parseCondition(f"program={name}")
            self.assertTrue(conditions.fit(Peer(program=comm)), name)
            self.assertFalse(conditions.fit(Peer(program=comm[:-1])), name)

    def test_several(self) -> None:
        """
        A peer must match all conditions, each by one of its values; without conditions, every peer
        matches.
        """
        conditions = Conditions.parse({"user": ["a", "b"], "transport": ["tls"]})
        for user, transport, fits in (
            ("a", "tls", True),
            ("b", "tls", True),
            ("c", "tls", False),
            ("a", "tcp", False),
        ):
            self.assertEqual(conditions.fit(Peer(transport=transport, user=user)), fits)
        self.assertTrue(Conditions.parse({}).fit(Peer()))


class MistakeTests(SynchronousTestCase):
    """
    Tests for invalid conditions.
    """

    def test_mistakes(self) -> None:
        """
        The error has the condition's name and the value.
        """
        for text, message in (
            ("netwrok=10/8", "there is no condition 'netwrok'; is network=10/8 meant?"),
            ("=x", "there is no condition ''; there are network, transport, dn, cn, user, program"),
            ("alice", "a condition has a name and a value, such as program=virt-install or user="),
            ("", "a condition has a name and a value"),
            ("network=10.0.0.1/8", "network: '10.0.0.1/8' is an address in a network; the network"),
            ("network=", "network: '' is not a network"),
            ("transport=udp", "transport: 'udp' is not one of tcp, tls, unix"),
            ("dn=alice", "dn: 'alice' is not a distinguished name such as O=Example,CN=alice"),
            ("dn=", "dn: '' is not a distinguished name"),
            ("user=", "user: the name is empty"),
            ("program=", "program: '' is not a program name"),
            ("program=/usr/bin/virsh", "program: '/usr/bin/virsh' is not a program name"),
            ("program=prometheus-libvirt-*", "program: 'prometheus-libvirt-*' is too long"),
        ):
            error = self.assertRaises(ConditionError, parseCondition, text)
            self.assertTrue(str(error).startswith(message), error)


class OfferTests(SynchronousTestCase):
    """
    Tests for the exception that a refusal suggests to the administrator.
    """

    def test_offers(self) -> None:
        """
        The suggestion is the narrowest condition that matches the peer, is short, and has no
        special characters.
        """
        address = IPv4Address("TCP", "192.0.2.1", 1234)
        for peer, expected in (
            (Peer(address), "network=192.0.2.1"),
            (Peer(address, user="alice", tlsDN="CN=a"), "user=alice"),
            (Peer(address, tlsDN="CN=a"), "dn=CN=a"),
            (Peer(address, tlsDN="O=A B,CN=a"), "network=192.0.2.1"),
            (Peer(address, user="a\nb"), "network=192.0.2.1"),
            (Peer(address, user="*"), "network=192.0.2.1"),
            (Peer(address, tlsDN="CN=?"), "network=192.0.2.1"),
            (Peer(program="virt-*"), "WHO"),
            (Peer(address, user="a" * 46), "network=192.0.2.1"),
            (Peer(address, user="a" * 45), f"user={'a' * 45}"),
            (LOCAL, "program=virt-install"),
            (Peer(UNIXAddress(""), "unix"), "WHO"),
            (Peer(), "WHO"),
        ):
            self.assertEqual(exceptionFor(peer), expected)
            if expected != "WHO":
                self.assertTrue(parseCondition(expected).fit(peer))

    def test_words(self) -> None:
        """
        L{CONDITIONS} has exactly these names.
        """
        self.assertEqual(list(CONDITIONS), ["network", "transport", "dn", "cn", "user", "program"])
