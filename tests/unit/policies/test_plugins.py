"""
Tests for L{kaproto.policies.plugins}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import attrs
from twisted.trial.unittest import SynchronousTestCase

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import MODES, Disable, Mandatory, Optional, Policy
from kaproto.policies import plugins as policies
from kaproto.policies.plugins import describePolicies, findPolicy, installedPolicies

TERMS = KeepAlive(7, 3)


@attrs.frozen
class Moody(Policy):
    """
    A third party's policy.
    """

    name = "moody"
    description = "refuse on bad days"
    argumentFormat = "DAY[,DAY]..."

    days: str | None = None

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Self:
        """
        Store the days.
        """
        if argument == "someday":
            raise ValueError("'someday' is no day of the week")
        return attrs.evolve(self, terms=keepAlive, days=argument)


class Impostor(Policy):
    """
    A policy with the name of another.
    """

    name = "mandatory"


class PoliciesTestCase(SynchronousTestCase):
    """
    Base class for tests with third-party plugins.
    """

    def setUp(self) -> None:
        """
        Replace C{getPlugins}.
        """
        self.asked: list[object] = []
        self.patch(policies, "getPlugins", self.getPlugins)

    def getPlugins(self, interface: object) -> Iterator[Policy]:
        """
        @return: the installed plugins.
        """
        self.asked.append(interface)
        return iter([Impostor(), *MODES, Moody()])


class InstalledTests(PoliciesTestCase):
    """
    Tests for the list of policies.
    """

    def test_installed(self) -> None:
        """
        The three modes and the rules are listed first, then installed plugins.
        """
        installed = installedPolicies()
        self.assertEqual(list(installed), ["disable", "optional", "mandatory", "rules", "moody"])
        self.assertIsInstance(installed["moody"], Moody)
        self.assertEqual(self.asked, [IKeepAlivePolicy])

    def test_ownCannotBeReplaced(self) -> None:
        """
        A plugin with the name of a mode does not replace the mode.
        """
        self.assertIsInstance(installedPolicies()["mandatory"], Mandatory)

    def test_described(self) -> None:
        """
        The help has a line for each policy, with its argument.
        """
        lines = describePolicies().splitlines()
        self.assertEqual(lines[0], "Policies for --mode:")
        self.assertEqual(len(lines), 6)
        self.assertRegex(lines[1], r"^  disable +mode 0: ")
        self.assertRegex(lines[4], r"^  rules:FILE +a mode for each peer, ")
        self.assertRegex(lines[5], r"^  moody:DAY\[,DAY\]\.\.\. +refuse on bad days$")


class FindTests(PoliciesTestCase):
    """
    Tests for the policy that C{--mode} selects.
    """

    def test_modes(self) -> None:
        """
        Modes are selected by number or name, and get the interval and count.
        """
        for selectors, mode in (
            (("0", "disable"), Disable(TERMS)),
            (("1", "optional"), Optional(TERMS)),
            (("2", "mandatory"), Mandatory(TERMS)),
        ):
            for selector in selectors:
                self.assertEqual(findPolicy(selector, TERMS), mode)

    def test_argument(self) -> None:
        """
        The text after the first colon is the policy's argument, which may be empty.
        """
        self.assertEqual(findPolicy("moody", TERMS), Moody(TERMS))
        self.assertEqual(findPolicy("moody:", TERMS), Moody(TERMS, ""))
        self.assertEqual(findPolicy("moody:mon:tue", TERMS), Moody(TERMS, "mon:tue"))

    def test_badArgument(self) -> None:
        """
        The error for an invalid argument is the policy's own.
        """
        error = self.assertRaises(ValueError, findPolicy, "moody:someday", TERMS)
        self.assertEqual(str(error), "policy moody: 'someday' is no day of the week")
        for selector in ("2:x", "mandatory:"):
            error = self.assertRaises(ValueError, findPolicy, selector, TERMS)
            self.assertIn("policy mandatory: mandatory takes no argument", str(error))

    def test_unknown(self) -> None:
        """
        The error for an unknown policy has its name and lists the known ones.
        """
        for selector in ("3", "-1", "2.0", "", ":x", "Mandatory", "99999999999999999999"):
            error = self.assertRaises(ValueError, findPolicy, selector, TERMS)
            name = selector.partition(":")[0]
            self.assertEqual(
                str(error),
                f"there is no policy {name!r}: it is one of 0, 1, 2, disable, mandatory, moody, "
                "optional, rules; --help-policies describes them",
            )
