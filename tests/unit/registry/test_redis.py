"""
Tests for L{kaproto.registry.redis}, with a model of Redis.
"""

from __future__ import annotations

import json

from twisted.internet.defer import fail
from twisted.internet.interfaces import IReactorTime

from kaproto.registry.interfaces import NotDisconnected, RegistryStatus
from kaproto.registry.listing import BATCH, NOT_YET
from kaproto.registry.orders import Order, decodeAnswer
from kaproto.registry.redis import RedisRegistry
from kaproto.registry.schema import LEASE, answerChannel
from tests.support_registry import FakeNode, RegistryTestCase

TOKEN = "0123456789abcdef" * 2


class RedisRegistryTests(RegistryTestCase):
    """
    Tests for the registry of one node.
    """

    def setUp(self) -> None:
        """
        Create a node with two clients.
        """
        super().setUp()
        self.node = FakeNode()
        self.node.clients = {1: {"id": 1, "user": "ann"}, 2: {"id": 2, "user": "bob"}}

    def listed(self, name: str = "host1") -> dict[int, object]:
        """
        @return: the clients of a node in Redis.
        """
        return {int(key): json.loads(value) for key, value in self.redis.clients(name).items()}

    def assertProblem(self, words: str | None) -> None:
        """
        Check the problem that the registry reports.

        @param words: a part of it, or C{None} if there must be no problem.
        """
        problem = self.subject.status().problem
        if words is None:
            self.assertIsNone(problem)
        else:
            self.assertIn(words, problem or "")

    def start(self) -> None:
        """
        Start the registry.
        """
        self.subject = self.registry(self.node)

    def test_listed(self) -> None:
        """
        All clients are written at the start, and changes within a second.
        """
        self.start()
        self.assertEqual(self.listed(), self.node.clients)
        self.node.set(3, user="eve")
        del self.node.clients[1]
        self.node.changed(1)
        self.assertGreaterEqual(self.subject.status().stale, 0)
        self.wait(1.1)
        self.assertEqual(self.listed(), self.node.clients)
        self.assertEqual(self.redis.hashes["kaproto:node:host1"]["epoch"], "1000")
        self.assertEqual(self.subject.status().stale, 0)
        self.assertProblem(None)

    def test_many(self) -> None:
        """
        Many clients are written in batches without waiting in between.
        """
        self.node.clients = {number: {"id": number} for number in range(1, 2 * BATCH + 2)}
        self.start()
        self.turns(20)
        self.assertEqual(len(self.listed()), 2 * BATCH + 1)
        self.assertEqual(self.redis.hashes["kaproto:node:host1"]["complete"], "1")

    def test_costsLittle(self) -> None:
        """
        A node without changes writes every four seconds.
        """
        self.start()
        before = len(self.redis.commands)
        self.wait(40)
        scripts = [each for each in self.redis.commands[before:] if each[0] == "EVAL"]
        self.assertIn(len(scripts), range(8, 11))

    def test_long(self) -> None:
        """
        Long values are truncated.
        """
        self.node.clients[1] = {"id": 1, "user": "x" * 5000}
        self.start()
        self.assertLess(len(self.redis.clients("host1")["1"]), 300)

    def test_refused(self) -> None:
        """
        Refused clients are written when they have changed, at most every ten seconds and at most
        100 of them.
        """
        self.start()
        self.node.refusals = [{"host": f"192.0.2.{number}"} for number in range(150)]
        self.wait(15)
        self.assertEqual(
            json.loads(self.redis.hashes["kaproto:node:host1"]["refused"]),
            self.node.refusals[:100],
        )
        self.redis.hashes["kaproto:node:host1"]["refused"] = "as it was"
        self.wait(15)
        self.assertEqual(self.redis.hashes["kaproto:node:host1"]["refused"], "as it was")

    def test_away(self) -> None:
        """
        A Redis that cannot be reached is logged once, and retried.
        """
        self.redis.refuses = True
        self.start()
        self.wait(30)
        self.assertProblem("refused")
        self.assertGreater(self.subject.status().stale, 29)
        self.assertEqual(len(self.logged()), 1)
        self.redis.refuses = False
        self.wait(7)
        self.assertProblem(None)
        self.assertEqual(self.listed(), self.node.clients)
        self.assertEqual(len(self.logged()), 2)

    def test_hangs(self) -> None:
        """
        Keepalive detects a Redis that hangs; changes since then are written when it continues.
        """
        self.start()
        self.redis.hangs = True
        self.node.set(3, user="eve")
        self.wait(LEASE + 10)
        self.assertProblem("does not answer")
        self.assertNotIn(3, self.listed())
        self.redis.hangs = False
        self.wait(12)
        self.assertProblem(None)
        self.assertEqual(self.listed(), self.node.clients)

    def test_restarted(self) -> None:
        """
        After a restart that lost its data, Redis gets all clients again.
        """
        self.start()
        self.redis.flush()
        self.redis.drop()
        self.assertProblem("has ended the connection")
        self.wait(3)
        self.assertProblem(None)
        self.assertEqual(self.listed(), self.node.clients)

    def test_flushed(self) -> None:
        """
        After all its data were deleted, Redis gets all clients again.
        """
        self.start()
        self.wait(20)
        self.redis.flush()
        self.wait(5)
        self.assertEqual(self.listed(), self.node.clients)
        self.assertIn("has lost", self.logged()[0])
        self.assertIn("is up to date", self.logged()[1])

    def test_full(self) -> None:
        """
        A Redis that refuses writes is retried every few seconds.
        """
        self.start()
        self.redis.error = "-OOM command not allowed when used memory > 'maxmemory'."
        self.wait(30)
        self.assertProblem("OOM")
        scripts = [each for each in self.redis.commands if each[0] == "EVAL"]
        self.assertLess(len(scripts), 12)
        self.redis.error = None
        self.wait(6)
        self.assertProblem(None)

    def test_nonsense(self) -> None:
        """
        Answers that are not valid are errors too.
        """
        self.redis.error = "+nonsense"
        self.start()
        self.wait(1)
        self.assertProblem("nonsense")
        for transport in list(self.redis.transports):
            transport.sendRaw(b"$nonsense\r\n*x\r\n\xff\r\n")
        self.redis.error = None
        self.wait(10)
        self.assertProblem(None)

    def test_cannotDescribe(self) -> None:
        """
        An exception while describing a client is logged, and the registry tries again.
        """
        self.patch(self.node, "client", lambda number: {"id": number}[number])
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.wait(1)
        self.assertProblem("could not be described")
        del self.node.client
        self.wait(6)
        self.flushLoggedErrors(KeyError)
        self.assertProblem(None)

    def test_anyText(self) -> None:
        """
        Names with invalid Unicode are listed too.
        """
        self.node.clients[1] = {"id": 1, "user": "\udcff\ud800 é"}
        self.start()
        self.assertEqual(self.listed(), self.node.clients)

    def test_notStarted(self) -> None:
        """
        Before its start a registry reports that it is not connected, and it can be stopped.
        """
        registry = RedisRegistry("x", "y", self.redis, self.factory, IReactorTime(self.clock))
        self.assertEqual(registry.status(), RegistryStatus("y", NOT_YET))
        self.successResultOf(registry.stop())

    def test_password(self) -> None:
        """
        A wrong password is reported as a problem until the file is corrected.
        """
        self.redis.password = "secret"
        self.start()
        self.wait(3)
        self.assertProblem("NOAUTH")
        self.password.text = "wrong"
        self.wait(10)
        self.assertProblem("WRONGPASS")
        self.password.text = "secret"
        self.wait(10)
        self.assertProblem(None)
        self.assertNotIn("secret", " ".join(self.logged()))

    def test_superseded(self) -> None:
        """
        A process whose node name another process has taken reports it and stops writing.
        """
        self.start()
        other = FakeNode()
        other.clients = {7: {"id": 7}}
        self.registry(other, started=2000)
        self.node.set(3)
        self.wait(60)
        self.assertProblem("another kaserver has this node's name")
        self.assertEqual(self.listed(), other.clients)

    def test_left(self) -> None:
        """
        A node that stops is removed from the list.
        """
        self.start()
        self.stop(self.subject)
        self.assertEqual((self.redis.hashes, self.redis.nodes), ({}, set()))

    def test_cannotLeave(self) -> None:
        """
        A Redis that hangs does not prevent a node from stopping.
        """
        self.start()
        self.redis.hangs = True
        self.stop(self.subject)
        self.assertIn("kaproto:node:host1", self.redis.hashes)
        self.assertIn("lists node host1 as gone", self.logged()[-1])

    def test_stoppedWhileConnecting(self) -> None:
        """
        A Redis that hangs during the connection attempt does not prevent a node from stopping.
        """
        self.redis.hangs = True
        self.start()
        self.stop(self.subject)
        self.assertEqual(self.redis.transports, [])

    def order(self, order: Order | str) -> str | None:
        """
        @return: the node's answer to an order.
        """
        answers: list[str] = []

        def publish(channel: str, message: str) -> int:
            if channel == answerChannel(TOKEN):
                answers.append(message)
            return 0

        self.redis.publish(
            "kaproto:order:host1", order.encode() if isinstance(order, Order) else order
        )
        self.patch(self.redis, "publish", publish)
        self.turns()
        del self.redis.publish
        return decodeAnswer(answers.pop()) if answers else "no answer"

    def test_orders(self) -> None:
        """
        Orders disconnect a client or drain the node, unless they are for an earlier start of the
        node.
        """
        self.start()
        self.assertIsNone(self.order(Order(TOKEN, 1000, 2, "updates")))
        self.assertIn("no client 2", self.order(Order(TOKEN, 1000, 2)) or "")
        self.assertIn("restarted", self.order(Order(TOKEN, 999, 1)) or "")
        self.assertIsNone(self.order(Order(TOKEN, 1000, None)))
        self.assertEqual(
            self.node.told, [("disconnect", 2, "updates"), ("disconnect", 2, None), ("drain",)]
        )
        unknown = fail(NotDisconnected("worker 1 does not answer"))
        self.patch(self.node, "disconnect", lambda _number, _reason: unknown)
        answer = self.order(Order(TOKEN, 1000, 1))
        self.assertEqual(answer, "node host1: worker 1 does not answer")

    def test_allowed(self) -> None:
        """
        C{--registry-orders} restricts the orders that a node follows.
        """
        for orders, refused in (("disconnect", [None]), ("none", [None, 2])):
            self.subject = self.registry(self.node, orders=orders)
            for number in refused:
                answer = self.order(Order(TOKEN, 1000, number))
                self.assertIn("--registry-orders", answer or "")
            self.stop(self.subject)
        self.assertEqual(self.node.told, [])

    def test_badOrders(self) -> None:
        """
        Invalid orders are ignored, and logged once per minute.
        """
        self.start()
        for _time in range(3):
            self.assertEqual(self.order("nonsense"), "no answer")
        self.assertEqual(len(self.logged()), 1)
        self.assertEqual(self.node.told, [])

    def test_floodOfOrders(self) -> None:
        """
        The number of orders per second is limited.
        """
        self.start()
        for _time in range(100):
            self.redis.publish("kaproto:order:host1", Order(TOKEN, 1000, 9).encode())
        self.turns()
        self.assertEqual(len(self.node.told), 50)

    def test_noWayToAnswer(self) -> None:
        """
        An order is followed even if the answer cannot be sent.
        """
        self.start()
        writer = next(each for each in self.redis.transports if not each.channels)
        self.redis.refuses = True
        writer.lose()
        self.assertEqual(self.order(Order(TOKEN, 1000, 2)), "no answer")
        self.assertEqual(self.node.told, [("disconnect", 2, None)])

    def test_deaf(self) -> None:
        """
        A node without its subscription, which cannot receive orders, reports a problem.
        """
        self.start()
        subscriber = next(each for each in self.redis.transports if each.channels)
        self.redis.refuses = True
        subscriber.lose()
        self.assertProblem("cannot give orders")
        self.redis.refuses = False
        self.wait(2)
        self.assertProblem(None)
