"""
Tests for L{kaproto.security.saslserver}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.cred.checkers import (
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.mechanism import Admit, Answer, Mechanism, SASLFailed
from kaproto.security.plain import Plain
from kaproto.security.saslserver import SASLServer
from kaproto.security.users import makePortal
from kaproto.wire.sasl import SASLResult


class Scripted:
    """
    A mechanism whose answers the test fires.
    """

    def __init__(self) -> None:
        self.asked: list[bytes | None] = []
        self.answers: list[Deferred[Answer]] = []
        self.abandoned = 0

    async def respond(self, data: bytes | None) -> Answer:
        """
        Wait for the test to answer.
        """
        self.asked.append(data)
        self.answers.append(Deferred())
        return await self.answers[-1]

    def abandon(self) -> None:
        """
        Count the call.
        """
        self.abandoned += 1


class ServerTests(SynchronousTestCase):
    """
    Tests for L{SASLServer}.
    """

    def setUp(self) -> None:
        """
        Create a server with two mechanisms.
        """
        self.made: list[Scripted] = []
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"sesame")
        self.server = SASLServer(makePortal([users]), {"SCRIPTED": self.make, "PLAIN": Plain})

    def make(self, portal: Portal, admit: Admit) -> Mechanism:
        """
        Create a mechanism, and keep it for the test.
        """
        self.made.append(Scripted())
        return self.made[-1]

    def going(self, coroutine: Coroutine[Any, Any, SASLResult]) -> Deferred[SASLResult]:
        """
        Run a coroutine.
        """
        return Deferred.fromCoroutine(coroutine)

    def fails(self, coroutine: Coroutine[Any, Any, SASLResult], words: str) -> None:
        """
        Check that a call fails.
        """
        failure = self.failureResultOf(self.going(coroutine), SASLFailed)
        self.assertIn(words, str(failure.value))

    def begin(self) -> Deferred[SASLResult]:
        """
        Start the scripted mechanism.
        """
        self.server.init()
        return self.going(self.server.start("SCRIPTED", b"first"))

    def test_init(self) -> None:
        """
        The client is told the mechanisms.
        """
        self.assertEqual(self.server.init(), ["SCRIPTED", "PLAIN"])

    def test_initTwice(self) -> None:
        """
        A second init is refused; the client may begin again after that.
        """
        self.server.init()
        self.assertRaises(SASLFailed, self.server.init)
        self.assertEqual(self.server.failures, 1)
        self.server.init()

    def test_outOfOrder(self) -> None:
        """
        Calls out of order are refused, and count as failures.
        """
        self.fails(self.server.start("PLAIN", None), "out of order: before init")
        self.fails(self.server.step(None), "out of order: before init")
        self.server.init()
        self.fails(self.server.step(None), "out of order: after init")
        self.assertEqual(self.server.failures, 3)

    def test_unknownMechanism(self) -> None:
        """
        A mechanism that the server did not offer is refused.
        """
        self.server.init()
        self.fails(self.server.start("CRAM-MD5", None), "there is no mechanism 'CRAM-MD5'")
        self.assertEqual(self.server.failures, 1)
        self.assertIsNone(self.server.mechanism)

    def test_oneStep(self) -> None:
        """
        A mechanism may complete in its first step.
        """
        self.server.init()
        result = self.successResultOf(self.going(self.server.start("PLAIN", b"\0alice\0sesame")))
        self.assertEqual(result, SASLResult(complete=True, data=None))
        self.assertEqual(self.server.user, "alice")
        self.assertEqual(self.server.mechanism, "PLAIN")

    def test_severalSteps(self) -> None:
        """
        A mechanism may take several steps.
        """
        started = self.begin()
        (mechanism,) = self.made
        mechanism.answers[0].callback(Answer(b"question", None))
        self.assertEqual(
            self.successResultOf(started), SASLResult(complete=False, data=b"question")
        )
        stepped = self.going(self.server.step(b"answer"))
        mechanism.answers[1].callback(Answer(b"welcome", "alice"))
        self.assertEqual(self.successResultOf(stepped), SASLResult(complete=True, data=b"welcome"))
        self.assertEqual(mechanism.asked, [b"first", b"answer"])
        self.assertEqual(self.server.user, "alice")
        self.assertEqual(mechanism.abandoned, 0)

    def test_failure(self) -> None:
        """
        After a failure the client may begin again.
        """
        started = self.begin()
        self.made[0].answers[0].errback(SASLFailed("no", "alice"))
        self.failureResultOf(started, SASLFailed)
        self.assertEqual(self.server.failures, 1)
        self.assertEqual(self.made[0].abandoned, 1)
        self.assertNoResult(self.begin())

    def test_brokenMechanism(self) -> None:
        """
        A mechanism that raises an unexpected error authenticates nobody.
        """
        started = self.begin()
        self.made[0].answers[0].errback(ZeroDivisionError())
        self.failureResultOf(started, ZeroDivisionError)
        self.assertEqual(self.server.failures, 1)
        self.assertIsNone(self.server.user)

    def test_impatience(self) -> None:
        """
        A client that does not wait for an answer is not authenticated by it.
        """
        started = self.begin()
        self.fails(self.server.step(b"more"), "out of order: being checked")
        self.made[0].answers[0].callback(Answer(None, "alice"))
        self.failureResultOf(started, SASLFailed)
        self.assertIsNone(self.server.user)
        self.assertEqual(self.server.failures, 1)

    def test_impatienceAndFailure(self) -> None:
        """
        A login that is interrupted and then fails counts as one failure.
        """
        started = self.begin()
        self.fails(self.server.start("PLAIN", None), "out of order")
        self.made[0].answers[0].errback(SASLFailed("no"))
        self.failureResultOf(started, SASLFailed)
        self.assertEqual(self.server.failures, 1)

    def test_onlyOnce(self) -> None:
        """
        A client that is authenticated cannot authenticate again.
        """
        self.test_oneStep()
        self.assertRaises(SASLFailed, self.server.init)
        self.fails(self.server.start("PLAIN", b"\0alice\0sesame"), "out of order: complete")
        self.assertRaises(SASLFailed, self.server.init)
        self.assertEqual(self.server.user, "alice")

    def test_abandon(self) -> None:
        """
        When the client disconnects, the mechanism is abandoned once.
        """
        self.begin()
        self.server.abandon()
        self.server.abandon()
        self.assertEqual(self.made[0].abandoned, 1)
        self.assertRaises(SASLFailed, self.server.init)
