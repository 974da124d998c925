"""
Tests for L{kaproto.policies}.
"""

from __future__ import annotations

from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import MODES, Disable, Mandatory, Optional, Policy, refusalFor
from tests.strategies import keepAlives

TERMS = KeepAlive(2, 3)


class ModesTests(SynchronousTestCase):
    """
    Tests for the three modes.
    """

    def test_numbers(self) -> None:
        """
        Modes 0, 1 and 2 are disable, optional and mandatory.
        """
        self.assertEqual([type(mode) for mode in MODES], [Disable, Optional, Mandatory])
        self.assertEqual([mode.name for mode in MODES], ["disable", "optional", "mandatory"])

    def test_help(self) -> None:
        """
        Each mode's help starts with its number, marks the default, and has no argument.
        """
        for number, mode in enumerate(MODES):
            self.assertTrue(mode.description.startswith(f"mode {number}: "), mode.description)
            self.assertEqual(mode.argumentFormat, "")
            self.assertEqual("(default)" in mode.description, number == 0)

    @given(st.sampled_from(MODES), keepAlives())
    def test_configured(self, mode: Policy, terms: KeepAlive) -> None:
        """
        A configured mode has the command line's interval and count; the original is unchanged.
        """
        configured = mode.configured(None, terms)
        self.assertIs(type(configured), type(mode))
        self.assertEqual(configured.terms, terms)
        self.assertEqual(mode.terms, KeepAlive(5, 5))

    def test_noArgument(self) -> None:
        """
        Modes refuse every argument, even an empty one.
        """
        for mode in MODES:
            for argument in ("", "10"):
                error = self.assertRaises(ValueError, mode.configured, argument, TERMS)
                self.assertIn(mode.name, str(error))
                self.assertIn(repr(argument), str(error))

    def test_advertised(self) -> None:
        """
        Every mode advertises keepalive, so that clients can ping the server.
        """
        for mode in MODES:
            for asked in (False, True):
                self.assertTrue(mode.advertises(Peer(asked=asked)))

    def test_pings(self) -> None:
        """
        Clients that asked for keepalive are pinged with the given interval and count in modes 1 and
        2, and not in mode 0.
        """
        peer = Peer(asked=True)
        pinged = [mode.configured(None, TERMS).keepAlive(peer) for mode in MODES]
        self.assertEqual(pinged, [None, TERMS, TERMS])

    def test_clientsThatAsked(self) -> None:
        """
        A client that asked for keepalive is admitted in every mode, without a warning.
        """
        for mode in MODES:
            self.assertEqual(mode.admit(Peer(asked=True)), ADMITTED)

    def test_clientsThatDidNotAsk(self) -> None:
        """
        A client that did not ask for keepalive is admitted in mode 0, admitted with a warning in
        mode 1, and refused in mode 2.
        """
        disable, optional, mandatory = (mode.admit(Peer()) for mode in MODES)
        self.assertEqual(disable, ADMITTED)
        assert isinstance(optional, Admission)
        self.assertIn("mode 2 would refuse", str(optional.warning))
        self.assertEqual(mandatory, Refused(refusalFor(Peer())))

    def test_refusal(self) -> None:
        """
        The refusal has one line of at most 300 characters: libvirt's prefix for this error code,
        the reason, then what an administrator can do about this client, then what a programmer can
        do.
        """
        address = IPv6Address("TCP", "2001:db8:1111:2222:3333:4444:5555:6666", 4040)
        for peer, exception in (
            (Peer(), "WHO"),
            (Peer(address), f"network={address.host}"),
            (Peer(address, user="alice"), "user=alice"),
            (Peer(address, user="a" * 999, tlsDN="CN=" + "b" * 999), f"network={address.host}"),
        ):
            refusal = refusalFor(peer)
            order = [
                "operation failed: this server requires keepalive, ",
                f"--except={exception}. ",
                "virEventRegisterDefaultImpl",
                "feature 10",
            ]
            places = [refusal.index(part) for part in order]
            self.assertEqual(places, sorted(places))
            self.assertEqual(places[0], 0)
            self.assertLessEqual(len(refusal), 300)
            self.assertEqual(len(refusal.splitlines()), 1)


class OwnPolicyTests(SynchronousTestCase):
    """
    Tests for a third-party policy.
    """

    def test_onlyWhatIsDifferent(self) -> None:
        """
        A subclass of L{Policy} needs only a name: it advertises keepalive, pings with the command
        line's interval and count, and admits.
        """

        class Quiet(Policy):
            name: ClassVar[str] = "quiet"

        policy = Quiet().configured(None, TERMS)
        self.assertIsInstance(policy, Quiet)
        self.assertTrue(policy.advertises(Peer()))
        self.assertEqual(policy.keepAlive(Peer(asked=True)), TERMS)
        self.assertEqual(policy.admit(Peer()), ADMITTED)
        self.assertIn("quiet", str(self.assertRaises(ValueError, policy.configured, "x", TERMS)))
