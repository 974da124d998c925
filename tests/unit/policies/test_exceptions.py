"""
Tests for L{kaproto.policies.exceptions}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.interfaces import ADMITTED, Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Disable, Exceptions, Mandatory, Optional, Policy
from kaproto.policies.conditions import ConditionError
from kaproto.policies.rules import RulesPolicy

TERMS = KeepAlive(7, 3)
BOTH = ["user=backup", "program=virt-install"]


class Picky(Policy):
    """
    A policy that requires keepalive, and refuses TCP.
    """

    name = "picky"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Refuse plain TCP, and clients that did not ask for keepalive.
        """
        if peer.transport == "tcp":
            return Refused("not over TCP")
        return ADMITTED if peer.asked else Refused("no keepalive")


class ExceptionsTests(SynchronousTestCase):
    """
    Tests for a policy with exceptions.
    """

    def test_interface(self) -> None:
        """
        A policy with exceptions has the wrapped policy's name and description.
        """
        policy = Exceptions(Mandatory(TERMS), BOTH)
        verifyObject(IKeepAlivePolicy, policy)
        self.assertEqual((policy.name, policy.description), (Mandatory.name, Mandatory.description))

    def test_exempt(self) -> None:
        """
        Mode 2 admits an exempt peer that did not ask for keepalive, and names the exception; other
        peers are refused.
        """
        policy = Exceptions(Mandatory(TERMS), BOTH)
        for peer, rule in (
            (Peer(user="backup"), "exception user=backup"),
            (Peer(program="virt-install"), "exception program=virt-install"),
        ):
            self.assertEqual(policy.admit(peer), Admission(rule=rule))
            self.assertFalse(peer.asked)
        for peer in (Peer(), Peer(user="alice"), Peer(program="virt-clone")):
            self.assertEqual(policy.admit(peer), Mandatory().admit(peer))

    def test_unknownProgram(self) -> None:
        """
        No exception for programs matches a peer whose program is unknown.
        """
        policy = Exceptions(Mandatory(TERMS), ["program=*"])
        self.assertIsInstance(policy.admit(Peer(transport="unix")), Refused)
        self.assertNotIsInstance(policy.admit(Peer(transport="unix", program="x")), Refused)

    def test_asked(self) -> None:
        """
        An exempt peer that asks for keepalive is treated like any other that does.
        """
        peer = Peer(user="backup", asked=True)
        policy = Exceptions(Mandatory(TERMS), BOTH)
        self.assertEqual(policy.admit(peer), ADMITTED)
        self.assertEqual(policy.keepAlive(peer), TERMS)
        self.assertTrue(policy.advertises(peer))

    def test_warnings(self) -> None:
        """
        In mode 1 exempt peers get no warning: those who do are the peers that mode 2 with the same
        exceptions would refuse.  Mode 0 is unchanged.
        """
        optional = Exceptions(Optional(TERMS), BOTH)
        exempt = optional.admit(Peer(user="backup"))
        other = optional.admit(Peer(user="alice"))
        assert isinstance(exempt, Admission)
        assert isinstance(other, Admission)
        self.assertIsNone(exempt.warning)
        self.assertIn("mode 2 would refuse", str(other.warning))
        self.assertEqual(Exceptions(Disable(), BOTH).admit(Peer(user="alice")), ADMITTED)

    def test_onlyKeepAlive(self) -> None:
        """
        An exception exempts from keepalive only: the policy's other requirements still hold.
        """
        policy = Exceptions(Picky(), BOTH)
        exempt = Peer(transport="tls", user="backup")
        self.assertEqual(policy.admit(exempt), Admission(rule="exception user=backup"))
        exempt.transport = "tcp"
        self.assertEqual(
            policy.admit(exempt), Refused("not over TCP", rule="exception user=backup")
        )

    def test_rules(self) -> None:
        """
        With rules, the answer names both the rule and the exception, also after a reload.
        """
        path = Path(self.mktemp())
        path.write_text("[default]\nmode = 2\n")
        rules = RulesPolicy(path, TERMS)
        policy = Exceptions(rules, BOTH)
        peer = Peer(user="backup")
        self.assertEqual(
            policy.admit(peer), Admission(rule="default, mode mandatory, exception user=backup")
        )
        path.write_text("[default]\nmode = 0\n")
        rules.reload()
        self.assertEqual(policy.admit(Peer()), Admission(rule="default, mode disable"))

    def test_configured(self) -> None:
        """
        Configuring configures the wrapped policy, and keeps the exceptions.
        """
        policy = Exceptions(Mandatory(), BOTH).configured(None, TERMS)
        self.assertEqual(policy.keepAlive(Peer()), TERMS)
        self.assertNotIsInstance(policy.admit(Peer(user="backup")), Refused)
        self.assertRaises(ValueError, policy.configured, "x", TERMS)

    def test_mistakes(self) -> None:
        """
        An invalid exception raises an error that quotes it.
        """
        error = self.assertRaises(ConditionError, Exceptions, Mandatory(), ["user=a", "users=a"])
        self.assertIn("users=a: there is no condition 'users'; is user=a meant?", str(error))
