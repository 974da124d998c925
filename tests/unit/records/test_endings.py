"""
Tests for L{kaproto.records.endings}.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as TransportTimeout
from twisted.trial.unittest import SynchronousTestCase

from kaproto import errors
from kaproto.peer import Peer
from kaproto.records.endings import KEPT, KINDS, Endings, kindOf


class KindTests(SynchronousTestCase):
    """
    Tests for the kinds of endings, a fixed set.
    """

    def test_errorTree(self) -> None:
        """
        Every error that can end a server's connection has its own kind, or that of its base class;
        only the others are of the kind C{error}.
        """
        plain = set()
        for name in errors.__all__:
            error = getattr(errors, name)
            instance = error.__new__(error)
            if kindOf(instance) == "error":
                plain.add(name)
        self.assertEqual(plain, {"KaprotoError", "KeepAliveUnsupported"})

    def test_foreign(self) -> None:
        """
        Network errors are of the kind C{connection_lost}, an application's subclass has the kind of
        its base class, and all other errors are of the kind C{error}.
        """

        class Rude(errors.PeerFlooded):
            pass

        for reason, kind in [
            (ConnectionLost(), "connection_lost"),
            (ConnectionAborted(), "connection_lost"),
            (TransportTimeout(), "connection_lost"),
            (BrokenPipeError(), "connection_lost"),
            (Rude("x"), "flooded"),
            (errors.ServerStopping(), "server_stopping"),
            (ZeroDivisionError(), "error"),
            (ConnectionDone(), "closed"),
        ]:
            self.assertEqual(kindOf(reason), kind, repr(reason))


class EndingsTests(SynchronousTestCase):
    """
    Tests for the list of the latest endings.
    """

    def test_ring(self) -> None:
        """
        The latest endings are kept, the latest first; all are counted.
        """
        endings = Endings()
        for number in range(KEPT + 5):
            endings.ended(
                Peer(id=number, connectedAt=number), errors.ServerStopping(), number + 2.0
            )
        self.assertEqual(len(endings), KEPT)
        self.assertEqual([each.who.id for each in endings], list(range(KEPT + 4, 4, -1)))
        self.assertEqual({each.duration for each in endings}, {2.0})
        self.assertEqual(endings.counts["server_stopping"], KEPT + 5)
        self.assertEqual(sum(endings.counts.values()), KEPT + 5)
        self.assertEqual(set(endings.counts), set(KINDS.values()))

    def test_words(self) -> None:
        """
        Text from a peer is escaped onto one line and truncated.
        """
        endings = Endings()
        endings.ended(Peer(requested="a\n" * 1000), errors.RemoteProtocolError("b\n" * 1000), 0)
        (ending,) = endings
        self.assertTrue((ending.reason + str(ending.name)).isprintable())
        self.assertLess(len(ending.reason), 600)
