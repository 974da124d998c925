"""
Tests for L{kaproto.workers.node}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost

from kaproto.errors import ConnectionClosed
from kaproto.registry.interfaces import NotDisconnected
from kaproto.server import KeepAliveServerProtocol
from kaproto.workers.changes import BATCH
from kaproto.workers.node import TeamNode
from tests.support import ADDRESS, OPEN, Wire
from tests.support_workers import LocalMember, TeamTestCase


class TeamNodeTests(TeamTestCase):
    """
    Tests for a server with two workers, seen as one node of a registry.
    """

    def setUp(self) -> None:
        """
        Follow the clients of both workers.
        """
        super().setUp()
        self.node = TeamNode(self.parent, self.team, self.clock)
        self.changes: list[int] = []
        self.node.follow(self.changes.append)
        self.addCleanup(self.node.stop)

    def connect(self) -> Wire[KeepAliveServerProtocol]:
        """
        @return: another client, of the second worker.
        """
        protocol = self.daemons[1].factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        return self.wire(protocol)

    def later(self, seconds: float = 0.5) -> set[int]:
        """
        Advance the clock.

        @return: the clients that have changed.
        """
        self.changes.clear()
        self.clock.pump([seconds, 0, 0, 0])
        return set(self.changes)

    def test_clients(self) -> None:
        """
        The node has the clients of all workers, and reports changes within half a second.
        """
        self.assertEqual(self.changes, [4, 5])
        self.assertEqual(sorted(self.node.numbers()), [4, 5])
        self.assertEqual((self.node.client(5) or {})["id"], 5)
        for nobody in (6, 9):
            self.assertIsNone(self.node.client(nobody))
        self.assertEqual(self.later(), set())
        client = self.connect()
        self.assertEqual(self.later(), {9})
        self.assertEqual((self.node.client(9) or {})["phase"], "ready")
        client.feed(OPEN)
        self.assertEqual(self.later(), {9})
        self.assertEqual((self.node.client(9) or {})["phase"], "open")
        client.lose()
        self.clients[0].abort(ConnectionClosed("left"))
        self._pairs[0].flush()
        self.assertEqual(self.later(), {4, 9})
        self.assertEqual((self.node.numbers(), self.node.client(4)), ([5], None))

    def test_workers(self) -> None:
        """
        When a worker has ended, its clients are removed.  Clients of a new worker, or of one that
        is leaving, are listed.
        """
        ended, leaving = self.members
        leaving.leaving = True
        self.team.ended(ended, "killed by SIGKILL")
        self.assertIsNone(self.node.client(4))
        self.assertEqual(self.later(), {4})
        self.assertEqual(self.node.numbers(), [5])
        self.team.members.append(LocalMember(0, self.daemons[0]))
        self.assertEqual(self.later(), {4})
        self.assertEqual(sorted(self.node.numbers()), [4, 5])

    def test_silence(self) -> None:
        """
        The clients of a worker that does not answer, or whose connection is lost, stay listed, and
        the other workers are still asked.
        """
        asked: list[Deferred[bytes]] = []

        def call(program: int, procedure: int, payload: bytes = b"") -> Deferred[bytes]:
            asked.append(Deferred())
            return asked[-1]

        self.patch(self.members[0], "call", call)
        self.connect()
        self.assertEqual((self.later(), self.later()), ({9}, set()))
        (silent,) = asked
        silent.errback(ConnectionLost())
        self.assertEqual(self.later(), set())
        self.assertEqual(len(asked), 2)
        self.assertEqual(sorted(self.node.numbers()), [4, 5, 9])

    def test_many(self) -> None:
        """
        A worker that has reported a full batch is asked again at once.
        """
        factory = self.daemons[1].factory
        for _ in range(2 * BATCH):
            self.pair(factory)
        self.assertEqual(len(self.later()), 2 * BATCH)

    def test_server(self) -> None:
        """
        The node's data has the number of all clients, the problem of any worker, and all workers'
        refusals.
        """
        self.assertEqual((self.node.about()["clients"], self.node.refused()), (2, []))
        gateway = self.daemons[1].becomeGateway()
        self.addCleanup(gateway.health.close)
        gateway.health.failed("libvirtd is away")
        for client, daemon in zip(self.clients, self.daemons, strict=True):
            daemon.factory.journal.warned(client.peer, "mode 2 would refuse it")
        self.later(2)
        self.assertEqual(self.node.about()["problem"], "libvirtd is away")
        (refusal,) = self.node.refused()
        self.assertEqual(refusal["would_refuse"], 2)

    def test_failure(self) -> None:
        """
        When asking the workers fails, that is logged, and they are asked again.
        """
        refresh = mock.Mock(side_effect=[RuntimeError("a defect"), succeed(None)])
        self.patch(
            self.parent, "register", mock.Mock(refresh=refresh, refusals=lambda _most: succeed([]))
        )
        for count in (1, 0):
            self.later(2.0)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), count)
        self.assertEqual(refresh.call_count, 2)

    def disconnect(self, number: int, reason: str | None = None) -> bool:
        """
        Order to disconnect a client.
        """

        async def order() -> bool:
            return await self.node.disconnect(number, reason)

        running: Coroutine[Deferred[Any], Any, bool] = order()
        return self.wait(running)

    def test_orders(self) -> None:
        """
        A client's own worker disconnects it, whatever the reason contains, and the server can be
        drained.
        """
        for nobody in (6, 9):
            self.assertFalse(self.disconnect(nobody))
        self.assertTrue(self.disconnect(4))
        self.assertTrue(self.disconnect(5, "updates \ud800" + "\x80" * 300))
        self.assertIn("updates \\ud800", str(self.clients[1].closing.reason))
        self.patch(self.members[1], "call", lambda *_arguments: fail(ConnectionLost()))
        self.assertFalse(self.disconnect(5))
        self.node.drain()
        self.assertEqual(self.parent.calls, [("drain", None)])

    def test_noAnswer(self) -> None:
        """
        If a worker does not answer an order, the order fails.
        """
        self.node.stop()
        self.patch(self.members[1], "call", lambda *_arguments: Deferred())
        ordered = self.node.disconnect(5, None)
        self.clock.advance(3)
        failure = self.failureResultOf(ordered, NotDisconnected)
        self.assertEqual(str(failure.value), "worker 1 does not answer")
