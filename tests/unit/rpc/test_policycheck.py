"""
Tests for L{kaproto.rpc.policycheck}.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kaproto.peer import Peer
from kaproto.rpc.policycheck import PolicyCheck, PolicyFailed, TellFailure


class Erratic:
    """
    A policy that answers as the test says.

    @ivar answer: what to return or raise.
    """

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def admit(self, peer: Peer) -> object:
        """
        Return or raise the answer.
        """
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def checked(policy: Erratic, tell: TellFailure | None = None) -> PolicyCheck:
    """
    @return: a check of the policy.
    """
    return PolicyCheck(cast(Any, policy), tell)


class PolicyCheckTests(SynchronousTestCase):
    """
    Tests for policies that fail.
    """

    def test_ask(self) -> None:
        """
        An answer of an allowed type is returned.  Any other answer or an exception raises
        L{PolicyFailed}, and the callback gets policy, method, peer and error.
        """
        peer = Peer()
        told: list[tuple[str, str, Peer, Exception]] = []
        for answer, problem in (
            (5, None),
            ("yes", None),
            (None, "admit() returned None"),
            (ValueError("a bug"), "a bug"),
        ):
            check = checked(Erratic(answer), lambda *each: told.append(each))
            if problem is None:
                self.assertEqual(check.ask("admit", peer, int, str), answer)
                continue
            for each in (check, checked(Erratic(answer))):
                self.assertRaises(PolicyFailed, each.ask, "admit", peer, int, str)
            ((name, question, about, error),) = told
            self.assertEqual((name, question, about), ("Erratic", "admit", peer))
            self.assertEqual(str(error), problem)
            told.clear()
        self.assertEqual(told, [])

    def test_name(self) -> None:
        """
        A policy is named by its C{name}, or else by its class.
        """
        policy = Erratic(None)
        self.assertEqual(checked(policy).name, "Erratic")
        policy.name = "own"  # type: ignore[attr-defined]
        self.assertEqual(checked(policy).name, "own")
