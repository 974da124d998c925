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
    What a registry has of one node, and how it answers.  The script in Redis does the same.
    """

    epoch: int = 0
    begun: int = 0
    clients: dict[int, str] = attrs.field(factory=dict)
    complete: bool = False
    process: object = None

    def write(self, batch: Batch, hint: int = 1000, process: object = None) -> tuple[str, int, int]:
        """
        @return: the answer to a batch of a process.
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
    One node, step by step.
    """

    def setUp(self) -> None:
        """
        Have a node with three clients.
        """
        self.clients = {number: f"client {number}" for number in (1, 2, 3)}
        self.stored = Stored()
        self.listing = Listing(self.clients.keys, self.clients.get, 0.0)

    def write(self, now: float) -> Batch | None:
        """
        Write what there is to write.
        """
        batch = self.listing.next(now)
        if batch is not None:
            self.listing.replied(*self.stored.write(batch), now)
        return batch

    def synced(self) -> None:
        """
        Have all written at 0.0.
        """
        self.listing.ready(0.0)
        self.write(0.0)
        self.assertEqual((self.listing.problem, self.listing.stale(9.0)), (None, 0.0))

    def change(self, number: int, text: str | None) -> None:
        """
        A client changes, or ends.
        """
        if text is None:
            del self.clients[number]
        else:
            self.clients[number] = text
        self.listing.changed(number)

    def test_nothingBeforeThereIsAConnection(self) -> None:
        """
        Without a connection nothing is written, and nothing is kept for later.
        """
        self.change(4, "new")
        self.assertIsNone(self.listing.next(5.0))
        self.assertEqual((self.listing.stale(5.0), self.listing.epoch), (5.0, None))
        self.assertIn("not been reached", self.listing.problem or "")

    def test_everythingFirst(self) -> None:
        """
        First everything is written, and the registry gives an epoch.
        """
        self.synced()
        self.assertEqual(self.stored, Stored(1000, 1, self.clients, complete=True))
        self.assertEqual(self.listing.epoch, 1000)

    def test_batches(self) -> None:
        """
        Many clients are written in batches, one after the other, and only with the last of them
        all are there.
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
        What changes within a second is written once, as it is then.
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
        A full batch is written at once, and the rest after it.
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
        There is a bound to what is noted, beyond which all is written anew.
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
        After a lost connection everything is written anew, with the epoch from before.  An answer
        that comes late is not looked at.
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
        After an error the next try is a second later, then two, and at most five.
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
        When the registry has lost everything, everything is written anew; again and again only
        after ten seconds.
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
        A wrong number of clients is noticed with the next batch.
        """
        self.synced()
        self.stored.clients[99] = "a stranger"
        self.write(20.0)
        self.assertIn("another program", self.listing.problem or "")
        self.write(20.0)
        self.assertEqual((self.stored.clients, self.listing.problem), (self.clients, None))

    def test_superseded(self) -> None:
        """
        A process whose node was started anew never writes again.
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
        What the first connection sent may come to Redis after a second one has got an epoch.  That
        is no other process, and does not take the node's name.
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
    One process of a node, and the batch of it that is on its way.
    """

    def __init__(self, now: float) -> None:
        self.clients: dict[int, str] = {}
        self.listing = Listing(self.clients.keys, self.clients.get, now)
        self.onItsWay: Batch | None = None
        self.isConnected = False


class ListingMachine(RuleBasedStateMachine):
    """
    A node that is restarted while its older processes may still write, and a Redis of which
    anything can be expected.

    What is written by an older process never replaces what a newer one wrote, and as soon as all
    is well for a while, what is stored is what is there.
    """

    numbers: ClassVar = st.integers(1, 5)

    @initialize()
    def begin(self) -> None:
        """
        There is one process.
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
        A client of any kind of change.
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
        Time passes, and each process sends what is due.
        """
        self.now += seconds
        for each in self.nodes:
            if each.isConnected and each.onItsWay is None:
                each.onItsWay = each.listing.next(self.now)

    @rule(which=st.integers(-2, -1))
    def connect(self, which: int) -> None:
        """
        A process reaches Redis.
        """
        node = self.nodes[max(which, -len(self.nodes))]
        if not node.isConnected:
            node.isConnected = True
            node.listing.ready(self.now)

    @rule(which=st.integers(-2, -1), outcome=st.sampled_from(["ok", "ok", "ok", "lost", "error"]))
    def deliver(self, which: int, outcome: str) -> None:
        """
        A batch comes to Redis, however late.  Its answer may be lost, or be an error.
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
        A process gives up a connection on which a batch is still on its way, and has another at
        once.
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
        It comes to Redis after all, and nobody reads the answer.  If all was written anew since,
        nothing comes of it.
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
        Redis forgets everything.
        """
        self.stored = Stored()

    @rule()
    def vandalize(self) -> None:
        """
        Somebody else writes to Redis.
        """
        self.stored.clients[99] = "a stranger"

    @precondition(lambda self: len(self.nodes) < 3)
    @rule()
    def restart(self) -> None:
        """
        The node is started anew and takes its epoch, while the older process may live on.
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
        Nobody who was superseded has anything under way, and nobody forgets that.
        """
        for each in self.nodes:
            if each.listing.superseded:
                assert each.listing.next(self.now + 1e6) is None
                assert each.listing.problem is not None

    @invariant()
    def bounded(self) -> None:
        """
        Nothing is noted for a process that cannot write.
        """
        for each in self.nodes:
            if not each.isConnected:
                assert not each.listing._changes

    def teardown(self) -> None:
        """
        All is well for half a minute: the newest process has all of its clients listed.
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
    Nodes, processes and a registry in any order of events.
    """

    def test_machine(self) -> None:
        """
        An older process never replaces what a newer one wrote, and the list becomes right by
        itself.
        """
        run_state_machine_as_test(
            ListingMachine,
            settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
        )
