"""
Tests for L{kaproto.registry.view}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kaproto.registry.link import RedisLink, connectLink
from kaproto.registry.orders import Order
from kaproto.registry.schema import LEASE, answerChannel
from kaproto.registry.view import ANSWER_TIMEOUT, FleetView, OrderFailed
from tests.support_registry import FakeNode, RegistryTestCase


class FleetTests(RegistryTestCase):
    """
    Tests for viewing two nodes.
    """

    def setUp(self) -> None:
        """
        Create two nodes and a view of them.
        """
        super().setUp()
        self.nodes = {name: FakeNode() for name in ("host1", "host2")}
        for name, node in self.nodes.items():
            node.clients = {number: {"id": number, "user": name} for number in (2, 1)}
            node.refusals = [{"host": "192.0.2.1", "refused": 3}]
            self.registry(node, name)
        self.links: list[RedisLink] = []
        self.addCleanup(self.turns)
        self.addCleanup(self.hangUp)
        self.fleet = FleetView(self.result(self.connect()), self.connect)

    def hangUp(self) -> None:
        """
        Close all connections.
        """
        for each in self.links:
            each.abort("the test is over")

    async def connect(self) -> RedisLink:
        """
        Connect to Redis.
        """
        self.links.append(link := await connectLink(self.redis, self.factory))
        return link

    def test_nodes(self) -> None:
        """
        Nodes are listed by name, with their clients by id.
        """
        first, second = self.result(self.fleet.nodes(clients=True))
        self.assertEqual((first.name, second.name), ("host1", "host2"))
        self.assertEqual((first.epoch, first.size, first.state), (1000, 2, "serving"))
        self.assertEqual([each["id"] for each in first.clients], [1, 2])
        self.assertEqual(first.refused, [{"host": "192.0.2.1", "refused": 3}])
        self.assertEqual(self.result(self.fleet.nodes())[0].clients, [])

    def test_states(self) -> None:
        """
        A node whose lease has expired is gone, and one that has not written all its clients yet is
        listing.
        """
        self.redis.hashes["kaproto:node:host2"]["complete"] = "0"
        self.redis.leases["kaproto:lease:host1"] -= LEASE
        states = [each.state for each in self.result(self.fleet.nodes())]
        self.assertEqual(states, ["gone", "listing"])

    def test_vandals(self) -> None:
        """
        Invalid data in Redis is ignored.
        """
        self.redis.nodes |= {"host3", "../host4"}
        self.redis.hashes["kaproto:node:host1"].update(about="[]", refused='[1, {"host": 2}]')
        self.redis.clients("host1").update({"3": "nonsense", "4": "[]", "5": '{"id": "x"}'})
        first, _second = self.result(self.fleet.nodes(clients=True))
        self.assertEqual((first.about, first.refused), ({}, [{"host": 2}]))
        self.assertEqual((first.state, len(first.clients), first.size), ("unknown", 2, 5))
        self.assertIsNone(self.result(self.fleet.node("host3")))

    def order(self, number: int | None, seconds: float = 1.0, name: str = "host1") -> None:
        """
        Give a node an order, and wait for the answer.
        """
        node = self.result(self.fleet.node(name))
        assert node is not None
        self.result(self.fleet.order(node, number, "updates", IReactorTime(self.clock)), seconds)

    def test_orders(self) -> None:
        """
        An order is followed, and its answer is returned or raised.
        """
        self.order(2)
        self.order(None)
        self.assertRaisesRegex(OrderFailed, "no client 2", self.order, 2)
        self.assertEqual(
            self.nodes["host1"].told,
            [("disconnect", 2, "updates"), ("drain",), ("disconnect", 2, "updates")],
        )
        self.assertEqual(self.nodes["host2"].told, [])

    def test_nobodyThere(self) -> None:
        """
        An order fails if the node is not connected or does not answer.
        """
        self.deafen()
        self.assertRaisesRegex(OrderFailed, "not connected", self.order, 2, name="host3")
        heard = self.listen()
        seconds = ANSWER_TIMEOUT + 1
        self.assertRaisesRegex(OrderFailed, "not answered", self.order, 2, seconds, "host3")
        self.assertEqual(len(heard), 1)

    def deafen(self) -> None:
        """
        Add a node named host3 that does not subscribe to orders.
        """
        self.redis.nodes.add("host3")
        self.redis.hashes["kaproto:node:host3"] = self.redis.hashes["kaproto:node:host1"]

    def listen(self) -> list[object]:
        """
        Subscribe to host3's orders.

        @return: a list to which they are added.
        """
        heard: list[object] = []
        link = self.result(self.connect())
        link.message = heard.append
        self.result(link.command("SUBSCRIBE", "kaproto:order:host3"))
        return heard

    def test_nonsense(self) -> None:
        """
        An invalid answer fails the order, and further answers are ignored.
        """
        self.deafen()
        heard = self.listen()
        node = self.result(self.fleet.node("host3"))
        assert node is not None
        answering = Deferred.fromCoroutine(
            self.fleet.order(node, 9, None, IReactorTime(self.clock))
        )
        while not heard:
            self.turns(1)
        channel = answerChannel(Order.decode(heard[0]).token)
        for _time in range(2):
            self.redis.publish(channel, "nonsense")
        self.turns()
        failure = self.failureResultOf(answering, OrderFailed)
        self.assertIn("not JSON", str(failure.value))
