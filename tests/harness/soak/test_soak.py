"""
Tests for the soak: its verdicts are right, and it can tell a good server from a bad one.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.soak.judge import Excuses, Judge, Tally, Verdict
from tests.harness.soak.sockdiag import isEstablished
from tests.interop.programs import Program, Result
from tests.interop.support import InteropTestCase, together

PROJECT = Path(__file__).resolve().parent.parent.parent


class ExcusesTests(SynchronousTestCase):
    """
    Tests for L{Excuses}.
    """

    def test_within(self) -> None:
        """
        The part of each span that lies within the given time counts.
        """
        excuses = Excuses([(1, 2), (4, 6)])
        excuses.add(10, 11)
        for begin, end, excused in [
            (0, 20, 4),
            (0, 1, 0),
            (1.5, 5, 1.5),
            (4.5, 5, 0.5),
            (6, 10, 0),
            (10.5, 12, 0.5),
        ]:
            self.assertEqual(excuses.within(begin, end), excused)


class JudgeTests(SynchronousTestCase):
    """
    Tests for L{Judge}, with an interval of 2 s and two pings, so that the timeout is 6 s.
    """

    def setUp(self) -> None:
        """
        Create a judge of a server that was stopped from 100 s to 110 s.
        """
        self.judge = Judge(2, 2, 0.5, Excuses([(100, 110)]))

    def silent(self, looked: float, seen: float, sent: float = 0) -> Verdict:
        """
        @return: the verdict on a client that fell silent between C{sent} and 0.1 s after it.
        """
        return self.judge.silent(sent, sent + 0.1, looked, seen)

    def test_found(self) -> None:
        """
        The server is in time from 6 s after the earliest time of the last byte until 6.5 s after
        the latest.
        """
        for seen in (6, 6.1, 6.6):
            self.assertIs(self.silent(seen - 0.02, seen), Verdict.FOUND)

    def test_early(self) -> None:
        """
        Before that it is too early, no matter when the observer polled.
        """
        for looked in (0.1, 3, 5.9):
            self.assertIs(self.silent(looked, 5.95), Verdict.EARLY)

    def test_late(self) -> None:
        """
        It is too late if the connection was open at a poll after the deadline.
        """
        self.assertIs(self.silent(6.65, 6.67), Verdict.LATE)

    def test_vague(self) -> None:
        """
        Without a poll near the deadline the verdict is vague.
        """
        self.assertIs(self.silent(6.55, 6.7), Verdict.VAGUE)

    def test_stopped(self) -> None:
        """
        A stop of the server extends the deadline.
        """
        self.assertIs(self.silent(115.9, 116, sent=99.8), Verdict.FOUND)
        self.assertIs(self.silent(116.5, 116.6, sent=99.8), Verdict.LATE)

    def test_forgotten(self) -> None:
        """
        A dead client is given up after three more timeouts.
        """
        self.assertFalse(self.judge.forgotten(0, 24.4))
        self.assertTrue(self.judge.forgotten(0, 24.6))
        self.assertFalse(self.judge.forgotten(99, 133))

    def test_live(self) -> None:
        """
        A server must not close the connection of a client that answers.  The verdict is unknown
        only if the time since the last poll is long enough for all pings to have been sent and left
        unanswered.
        """
        self.assertIs(self.judge.live(10, 10.02), Verdict.KILLED)
        self.assertIs(self.judge.live(10, 13.9), Verdict.KILLED)
        self.assertIs(self.judge.live(10, 14), Verdict.UNKNOWN)


class TallyTests(SynchronousTestCase):
    """
    Tests for L{Tally}.
    """

    def test_wrong(self) -> None:
        """
        Deaths found in time are right, even if vaguely so; all other verdicts are wrong.
        """
        tally = Tally(dict.fromkeys(Verdict, 2))
        self.assertEqual(tally.found, 4)
        self.assertEqual(set(tally.wrong), set(Verdict) - {Verdict.FOUND, Verdict.VAGUE})
        self.assertEqual(Tally({Verdict.FOUND: 1, Verdict.LATE: 0}).wrong, {})


class SockDiagTests(SynchronousTestCase):
    """
    Tests for L{isEstablished}.
    """

    def test_isEstablished(self) -> None:
        """
        A connection is open until one end closes it, whether or not a socket listens on the port.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        server = listening.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", server))
        self.addCleanup(client.close)
        port = client.getsockname()[1]
        accepted, _address = listening.accept()
        self.assertTrue(isEstablished(server, port))
        self.assertFalse(isEstablished(server, server))
        accepted.close()
        self.assertFalse(isEstablished(server, port))
        listening.close()
        self.assertFalse(isEstablished(server, server))


class ScriptTests(InteropTestCase):
    """
    Tests for C{python -m tests.harness.soak}, for seconds instead of minutes.
    """

    tools = ("libvirtd",)

    async def soak(self, *arguments: str) -> Result:
        """
        Run it, and wait for its end.
        """
        command = [sys.executable, "-m", "tests.harness.soak", "--minutes=0.03", "--count=2"]
        command += arguments
        # The working directory decides which package is imported as C{tests}.
        program = Program.start(self, command, os.environ, str(PROJECT))
        return await program.finish(50)

    async def test_soak(self) -> None:
        """
        kaserver passes the soak: it keeps live clients, finds dead ones, and leaks nothing.  One
        that keeps a dictionary entry for each client fails.
        """
        plain = ("--clients=100", "--interval=0.2")
        good, bad = await together(self.soak(*plain), self.soak(*plain, "--mutant=entries"))
        self.assertPassed(good)
        self.assertEqual(bad.exitCode, 1, bad.output)
        self.assertRegex(bad.output, r"FAILED:\n  entries: \d+ more, \d+ are allowed\n")

    async def test_gateway(self) -> None:
        """
        A gateway passes the soak: it keeps busy and slow clients, and those that download much or
        make many calls, and finds dead ones.  One that mistakes slow or busy clients for dead
        fails.
        """
        plain = ("--gateway", "--clients=40", "--interval=0.3")
        mutants = ("hasty", "impatient")
        good, *bad = await together(
            self.soak(*plain), *(self.soak(*plain, f"--mutant={each}") for each in mutants)
        )
        self.assertPassed(good)
        for each, kind in zip(bad, ("slow", "busy"), strict=True):
            self.assertEqual(each.exitCode, 1, each.output)
            self.assertRegex(each.output, rf"live clients dropped: {kind} client")

    def assertPassed(self, result: Result) -> None:
        """
        Check that the soak passed.
        """
        self.assertEqual(result.exitCode, 0, result.output)
        self.assertRegex(
            result.output, r"PASSED: [1-9]\d* dead clients found in time, 0 not; 0 live"
        )
