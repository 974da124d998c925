"""
Tests for L{kaproto.registry.listing}.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kaproto.registry.listing import BATCH, CHANGES_MAX, PERIOD, RENEW, RETRY_MAX, Batch, Listing


@attrs.define
class Stored:
    """
    A model of one node's data in Redis, which answers as the script in Redis does.
    """

    epoch: int = 0
    begun: int = 0
    clients: dict[int, str] = attrs.field(factory=dict)
    complete: bool = False
    process: object = None

    def write(self, batch: Batch, hint: int = 1000, process: object = None) -> tuple[str, int, int]:
        """
        Apply a batch.

        @return: the script's answer.
        """
        same = process is not None and process == self.process
        epoch = batch.epoch or (self.epoch if same else max(self.epoch + 1, hint))
        if self.epoch > epoch:
            return "superseded", self.epoch, 0
        last = self.begun if self.epoch == epoch else 0
        if last > batch.begun:
            return "unknown", epoch, 0
        if batch.begin:
            self.clients = {}
        elif self.epoch < epoch or last < batch.begun:
            return "unknown", epoch, 0
        self.epoch, self.begun, self.complete = epoch, batch.begun, batch.complete
        self.process = process
        self.clients.update(batch.changed)
        for each in batch.ended:
            self.clients.pop(each, None)
        return "written", epoch, len(self.clients)


class ListingTests(SynchronousTestCase):
    """
    Tests for the listing of one node, step by step.
    """

    def setUp(self) -> None:
        """
        Create a node with three clients.
        """
        self.clients = {number: f"client {number}" for number in (1, 2, 3)}
        self.stored = Stored()
        self.listing = Listing(self.clients.keys, self.clients.get, 0.0)

    def write(self, now: float) -> Batch | None:
        """
        Write the next batch, if there is one.
        """
        batch = self.listing.next(now)
        if batch is not None:
            self.listing.replied(*self.stored.write(batch), now)
        return batch

    def synced(self) -> None:
        """
        Write all clients at time 0.
        """
        self.listing.ready(0.0)
        self.write(0.0)
        self.assertEqual((self.listing.problem, self.listing.stale(9.0)), (None, 0.0))

    def change(self, number: int, text: str | None) -> None:
        """
        Change or end a client.
        """
        if text is None:
            del self.clients[number]
        else:
            self.clients[number] = text
        self.listing.changed(number)

    def test_nothingBeforeThereIsAConnection(self) -> None:
        """
        Without a connection no changes are written or recorded.
        """
        self.change(4, "new")
        self.assertIsNone(self.listing.next(5.0))
        self.assertEqual((self.listing.stale(5.0), self.listing.epoch), (5.0, None))
        self.assertIn("not been reached", self.listing.problem or "")

    def test_everythingFirst(self) -> None:
        """
        On the first connection all clients are written, and the registry assigns an epoch.
        """
        self.synced()
        self.assertEqual(self.stored, Stored(1000, 1, self.clients, complete=True))
        self.assertEqual(self.listing.epoch, 1000)

    def test_batches(self) -> None:
        """
        Many clients are written in several batches, one after the other, and the last one completes
        the list.
        """
        self.clients.update(dict.fromkeys(range(1, 2 * BATCH + 2), "x"))
        self.listing.ready(0.0)
        sizes = []
        for complete in (False, False, True):
            batch = self.listing.next(0.0)
            assert batch is not None
            self.assertIsNone(self.listing.next(0.0), "one at a time")
            self.listing.replied(*self.stored.write(batch), 0.0)
            sizes.append(len(batch.changed))
            self.assertEqual((self.stored.complete, self.listing.problem is None), (complete,) * 2)
        self.assertEqual((sizes, self.stored.clients), ([BATCH, BATCH, 1], self.clients))

    def test_changesAreCollected(self) -> None:
        """
        Several changes of a client within a second are written once, with the latest state.
        """
        self.synced()
        self.change(2, "changed")
        self.change(2, "changed again")
        self.change(3, None)
        self.change(4, "new")
        self.change(4, None)
        self.assertIsNone(self.write(PERIOD / 2))
        self.assertEqual(
            self.write(PERIOD), Batch(1000, 1, False, True, {2: "changed again"}, [3, 4])
        )
        self.assertEqual(self.stored.clients, self.clients)
        self.assertEqual(self.listing.stale(PERIOD), 0.0)

    def test_manyChangesDoNotWait(self) -> None:
        """
        A full batch is written at once, and the remaining changes after it.
        """
        self.synced()
        for number in range(10, 10 + BATCH + 1):
            self.change(number, "new")
        full = self.write(0.1)
        assert full is not None
        self.assertEqual((len(full.changed), self.write(0.1)), (BATCH, None))
        self.assertGreater(self.listing.stale(0.5), 0)
        self.write(0.1 + PERIOD)
        self.assertEqual(self.stored.clients, self.clients)

    def test_renewed(self) -> None:
        """
        Without changes the lease is renewed.
        """
        self.synced()
        self.assertIsNone(self.write(RENEW - 0.1))
        self.assertEqual(self.write(RENEW), Batch(1000, 1, False, True, {}, []))

    def test_tooManyChanges(self) -> None:
        """
        The number of recorded changes is bounded; beyond it all clients are written again.
        """
        self.synced()
        for number in range(10, 11 + CHANGES_MAX):
            self.listing.changed(number)
        self.assertEqual(self.listing._changes, {})
        batch = self.listing.next(0.0)
        assert batch is not None
        self.assertTrue(batch.begin)

    def test_lost(self) -> None:
        """
        After a lost connection all clients are written again in the same epoch.  A late answer is
        ignored.
        """
        self.synced()
        self.change(1, "changed")
        self.listing.next(PERIOD)
        self.listing.lost("it hangs", 7.0)
        self.listing.replied("written", 1000, 3, 7.0)
        self.assertEqual((self.listing.problem, self.listing.stale(8.0)), ("it hangs", 8.0))
        self.listing.ready(9.0)
        self.stored.clients = {}
        self.assertEqual(self.write(9.0), Batch(1000, 2, True, True, dict(self.clients), []))
        self.assertEqual((self.listing.problem, self.listing.stale(9.0)), (None, 0.0))

    def test_failed(self) -> None:
        """
        After an error the listing waits for 1, 2, 4 and at most 5 seconds before the next try.
        """
        now, waits = 0.0, []
        for _time in range(5):
            self.listing.ready(now)
            self.assertIsNotNone(self.listing.next(now))
            self.listing.failed("OOM", now)
            self.listing.ready(now)
            failedAt = now
            while self.listing.next(now) is None:
                now += 0.5
            waits.append(now - failedAt)
            self.listing.lost("gone", now)
        self.assertEqual(waits, [1.0, 2.0, 4.0, RETRY_MAX, RETRY_MAX])
        self.listing.ready(now)
        self.write(now)
        self.assertIsNone(self.listing.problem)

    def test_flushed(self) -> None:
        """
        If the registry has lost its data, all clients are written again, but at most every ten
        seconds.
        """
        self.synced()
        for begun, flushedAt, again in ((2, 20.0, 20.0), (3, 24.0, 30.0)):
            self.stored = Stored()
            self.write(flushedAt)
            self.assertIn("has lost", self.listing.problem or "")
            self.assertEqual(self.stored.clients, {})
            self.assertIsNone(None if again == flushedAt else self.write(again - 0.1))
            self.write(again)
            self.assertEqual(self.stored, Stored(1000, begun, self.clients, complete=True))
            self.assertIsNone(self.listing.problem)

    def test_changedByOthers(self) -> None:
        """
        A wrong number of clients is detected with the next batch.
        """
        self.synced()
        self.stored.clients[99] = "a stranger"
        self.write(20.0)
        self.assertIn("another program", self.listing.problem or "")
        self.write(20.0)
        self.assertEqual((self.stored.clients, self.listing.problem), (self.clients, None))

    def test_superseded(self) -> None:
        """
        A process whose node was restarted never writes again.
        """
        self.synced()
        self.stored = Stored(2000, 1, {1: "of the new process"})
        self.change(1, "of the old one")
        self.write(PERIOD)
        self.assertIn("another kaserver has this node's name", self.listing.problem or "")
        self.listing.lost("gone", 5.0)
        self.listing.ready(6.0)
        self.listing.changed(1)
        self.assertIsNone(self.listing.next(60.0))
        self.assertIn("another kaserver has this node's name", self.listing.problem or "")
        self.assertEqual(self.stored.clients, {1: "of the new process"})

    def test_ownFirstBatchComesLate(self) -> None:
        """
        The first connection's batch may reach Redis after a second connection has been assigned an
        epoch.  It is not mistaken for another process.
        """
        self.listing.ready(0.0)
        late = self.listing.next(0.0)
        assert late is not None
        self.listing.lost("it hangs", 1.0)
        self.listing.ready(2.0)
        for at in (2.0, 2.0 + RENEW):
            batch = self.listing.next(at)
            assert batch is not None
            self.listing.replied(*self.stored.write(batch, process="ours"), at)
            self.assertEqual(self.stored.write(late, process="ours")[0], "unknown")
        self.assertFalse(self.listing.superseded)
        self.assertEqual(self.stored.clients, self.clients)


class _Node:
    """
    One process of a node, with its pending batch.
    """

    def __init__(self, now: float) -> None:
        self.clients: dict[int, str] = {}
        self.listing = Listing(self.clients.keys, self.clients.get, now)
        self.onItsWay: Batch | None = None
        self.isConnected = False


class ListingMachine(RuleBasedStateMachine):
    """
    A node that is restarted while older processes may still write, and a Redis that may fail in any
    way.

    An older process never overwrites a newer one's data, and once failures stop, the stored clients
    are the node's.
    """

    numbers: ClassVar = st.integers(1, 5)

    @initialize()
    def begin(self) -> None:
        """
        Start one process.
        """
        self.now, self.version = 0.0, 0
        self.stored = Stored()
        self.nodes = [_Node(0.0)]
        self.late: list[tuple[Batch, _Node]] = []

    @property
    def newest(self) -> _Node:
        """
        The process that was started last.
        """
        return self.nodes[-1]

    @rule(number=numbers, ends=st.booleans())
    def change(self, number: int, *, ends: bool) -> None:
        """
        Change or end a client.
        """
        self.version += 1
        for each in self.nodes[-2:]:
            each.clients.pop(number, None)
            if not ends:
                each.clients[number] = f"version {self.version}"
            each.listing.changed(number)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """
        Advance the time, and let each process send what is due.
        """
        self.now += seconds
        for each in self.nodes:
            if each.isConnected and each.onItsWay is None:
                each.onItsWay = each.listing.next(self.now)

    @rule(which=st.integers(-2, -1))
    def connect(self, which: int) -> None:
        """
        Connect a process to Redis.
        """
        node = self.nodes[max(which, -len(self.nodes))]
        if not node.isConnected:
            node.isConnected = True
            node.listing.ready(self.now)

    @rule(which=st.integers(-2, -1), outcome=st.sampled_from(["ok", "ok", "ok", "lost", "error"]))
    def deliver(self, which: int, outcome: str) -> None:
        """
        Deliver a pending batch to Redis; its answer may be lost or be an error.
        """
        node = self.nodes[max(which, -len(self.nodes))]
        batch, node.onItsWay = node.onItsWay, None
        if batch is None:
            return
        if outcome == "error":
            node.isConnected = False
            node.listing.failed("OOM", self.now)
            return
        reply = self.stored.write(batch, 1, node)
        if outcome == "ok":
            node.listing.replied(*reply, self.now)
        else:
            node.isConnected = False
            node.listing.lost("lost", self.now)

    @rule(which=st.integers(-2, -1))
    def giveUp(self, which: int) -> None:
        """
        Replace a process's connection, while a batch may still be pending on the old one.
        """
        node = self.nodes[max(which, -len(self.nodes))]
        node.isConnected = False
        node.listing.lost("it hangs", self.now)
        if node.onItsWay is not None:
            self.late.append((node.onItsWay, node))
        node.isConnected = True
        node.listing.ready(self.now)
        node.onItsWay = node.listing.next(self.now)

    @precondition(lambda self: self.late)
    @rule()
    def deliverLate(self) -> None:
        """
        Deliver a batch of a replaced connection, whose answer is not read.  It has no effect if all
        clients have been written again since.
        """
        batch, node = self.late.pop(0)
        before = attrs.evolve(self.stored)
        before.clients = dict(before.clients)
        self.stored.write(batch, 1, node)
        if batch.epoch == before.epoch and batch.begun < before.begun:
            assert self.stored == before

    @rule()
    def flush(self) -> None:
        """
        Delete all data in Redis.
        """
        self.stored = Stored()

    @rule()
    def vandalize(self) -> None:
        """
        Write to Redis as another program.
        """
        self.stored.clients[99] = "a stranger"

    @precondition(lambda self: len(self.nodes) < 3)
    @rule()
    def restart(self) -> None:
        """
        Start another process of the node, which is assigned an epoch, while the older one may still
        run.
        """
        self.nodes.append(node := _Node(self.now))
        node.isConnected = True
        node.listing.ready(self.now)
        batch = node.listing.next(self.now)
        assert batch is not None
        node.listing.replied(*self.stored.write(batch, 1, node), self.now)

    @invariant()
    def epochsGrow(self) -> None:
        """
        A superseded process writes nothing and keeps reporting the problem.
        """
        for each in self.nodes:
            if each.listing.superseded:
                assert each.listing.next(self.now + 1e6) is None
                assert each.listing.problem is not None

    @invariant()
    def bounded(self) -> None:
        """
        A process without a connection records no changes.
        """
        for each in self.nodes:
            if not each.isConnected:
                assert not each.listing._changes

    def teardown(self) -> None:
        """
        Without failures for 30 seconds, the newest process has all its clients listed.
        """
        node = self.newest
        if not node.isConnected:
            node.listing.ready(self.now)
        for _second in range(30):
            self.now += 1.0
            batch = node.onItsWay or node.listing.next(self.now)
            node.onItsWay = None
            if batch is not None:
                node.listing.replied(*self.stored.write(batch, 1, node), self.now)
        if node.listing.superseded:
            # An older process took a higher epoch because Redis had forgotten this one's.
            assert len(self.nodes) > 1
            return
        assert self.stored.clients == node.clients, (self.stored.clients, node.clients)
        assert self.stored.complete
        assert node.listing.problem is None
        assert node.listing.stale(self.now) == 0.0


class ModelTests(SynchronousTestCase):
    """
    Tests with a state machine of nodes, processes and a registry.
    """

    def test_machine(self) -> None:
        """
        An older process never overwrites a newer one's data, and the list recovers by itself.
        """
        run_state_machine_as_test(
            ListingMachine,
            settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
        )
