"""
Tests for L{kaproto.logbounds}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, eventAsText, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from kaproto.logbounds import BOUNDS, VALUE_MAX, LogBounds, Rate, shorten
from kaproto.peer import Peer


def peerAt(host: str, port: int = 1) -> Peer:
    """
    @return: a peer that connected from this address.
    """
    return Peer(IPv4Address("TCP", host, port))


class LogBoundsTestCase(SynchronousTestCase):
    """
    A test case with its own log and bounds.
    """

    def setUp(self) -> None:
        """
        Allow three lines for each peer and five in all.
        """
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.bounds = LogBounds(
            self.keep, self.clock.seconds, perPeer=Rate(3, 1), overall=Rate(5, 2)
        )
        self.journal = Logger(observer=self.bounds)

    @provider(ILogObserver)
    def keep(self, event: LogEvent) -> None:
        """
        Record an event.
        """
        self.events.append(event)

    def drop(self, host: str, times: int = 1) -> None:
        """
        Log lines about a peer.
        """
        for port in range(times):
            self.journal.warn("dropped {peer}", peer=peerAt(host, port))

    def lines(self) -> list[str]:
        """
        @return: the lines logged since the last call.
        """
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines


class NumberTests(LogBoundsTestCase):
    """
    Tests for the number of lines.
    """

    def test_perPeer(self) -> None:
        """
        A peer causes a limited number of lines, whatever its port, and one more each second.
        """
        self.drop("192.0.2.1", 100)
        self.assertEqual(self.lines(), [f"dropped tcp 192.0.2.1:{port}" for port in (0, 1, 2)])
        self.clock.advance(2)
        self.drop("192.0.2.1", 100)
        self.assertEqual(len(self.lines()), 2)

    def test_others(self) -> None:
        """
        One peer's flood does not suppress lines about others.
        """
        self.drop("192.0.2.1", 100)
        self.lines()
        self.drop("192.0.2.2")
        self.assertEqual(self.lines(), ["dropped tcp 192.0.2.2:0"])

    def test_overall(self) -> None:
        """
        All peers together cause a limited number of lines.
        """
        for number in range(100):
            self.drop(f"192.0.2.{number}")
        self.assertEqual(len(self.lines()), 5)
        self.clock.advance(1)
        for number in range(100):
            self.drop(f"192.0.2.{number}")
        self.assertEqual(len(self.lines()), 2)

    def test_withoutPeer(self) -> None:
        """
        Lines that are not about a peer are always logged.
        """
        for number in range(100):
            self.journal.info("line {number}", number=number)
            self.journal.info("line {number}", number=number, peer="nobody in particular")
        self.assertEqual(len(self.lines()), 200)

    def test_summary(self) -> None:
        """
        After a minute the next event is followed by a summary: how many lines were suppressed, and
        which peer had the most. They are counted only once.
        """
        self.drop("192.0.2.1", 8)
        self.drop("192.0.2.2", 30)
        self.clock.advance(60)
        self.lines()
        self.journal.info("a minute later")
        summary = "33 more lines about clients were not logged; 28 of them about 192.0.2.2"
        self.assertEqual(self.lines(), ["a minute later", summary])
        self.clock.advance(60)
        self.journal.info("another minute later")
        self.assertEqual(self.lines(), ["another minute later"])

    def test_forgotten(self) -> None:
        """
        The table of peers is bounded, and lines about peers that were dropped from it are still
        counted.
        """
        self.bounds.PEERS_MAX = 2  # type: ignore[misc]
        self.drop("192.0.2.1", 5)
        self.drop("192.0.2.2")
        self.drop("192.0.2.3")
        self.lines()
        self.clock.advance(3)
        self.drop("192.0.2.1", 4)
        self.lines()
        self.bounds.summarize()
        (line,) = self.lines()
        self.assertTrue(line.startswith("3 more lines"), line)

    def test_clear(self) -> None:
        """
        C{clear} resets all counts.
        """
        self.drop("192.0.2.1", 100)
        self.lines()
        self.bounds.clear()
        self.drop("192.0.2.1", 100)
        self.assertEqual(len(self.lines()), 3)


class LengthTests(LogBoundsTestCase):
    """
    Tests for the length of lines.
    """

    def test_shortened(self) -> None:
        """
        Every long value is shortened: text, exceptions and peers.
        """
        name = "A" * 320_000
        peer = Peer(peerAt("192.0.2.1").address, tlsDN=f"CN={name}")
        self.journal.warn("{peer}: {user!r}: {error}", peer=peer, user=name, error=ValueError(name))
        self.journal.info("{user!r}", user=name)
        lines = self.lines()
        self.assertLess(len(lines[0]), 3 * VALUE_MAX + 200)
        self.assertIn("... (320,000 characters)", lines[0])
        self.assertLess(len(lines[1]), VALUE_MAX + 100)

    def test_oneLine(self) -> None:
        """
        Line breaks and control characters in values are escaped.
        """
        self.journal.info("{one} {two!r}", one="a\nb\x1b[31m\u2028", two="c\r\n")
        (line,) = self.lines()
        self.assertEqual(line, r"a\nb\x1b[31m\u2028 'c\\r\\n'")

    def test_untouched(self) -> None:
        """
        Events without long values are passed on unchanged.
        """
        self.journal.info("{number} {text}", number=1, text="two")
        (event,) = self.events
        self.assertEqual((event["number"], event["text"]), (1, "two"))

    def test_traceback(self) -> None:
        """
        A traceback that is long because of the peer's data is cut; others are not.
        """
        for length in (10, 1_000_000):
            self.journal.failure("went wrong", Failure(ValueError("x" * length)))
        short, long = (eventAsText(event, includeTimestamp=False) for event in self.events)
        self.assertIn("log_failure", self.events[0])
        self.assertIn("ValueError: xxxxxxxxxx", short)
        self.assertIn("went wrong", long)
        self.assertIn("Traceback", long)
        self.assertLess(len(long), 20_000)

    def test_shorten(self) -> None:
        """
        Text that grows when it is escaped is cut, too.
        """
        self.assertEqual(shorten("plain"), "plain")
        self.assertEqual(shorten("abcdef", 3), "abc... (6 characters)")
        self.assertEqual(len(shorten("\U000e0001" * 300, 300)), 300)


class GlobalTests(SynchronousTestCase):
    """
    Tests for the bounds of the whole process.
    """

    def test_global(self) -> None:
        """
        Thousands of clients can reconnect at once without suppressed lines.
        """
        self.assertGreaterEqual(BOUNDS.overall.burst, 10_000)
