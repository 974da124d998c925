"""
Tests for L{kaproto.security.guessing}.
"""

from __future__ import annotations

from mmap import mmap

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kaproto.security import loginbooks
from kaproto.security.guessing import KNOWN_FOR, GuessLimit
from kaproto.security.loginbooks import WINDOW, Books
from kaproto.security.suspects import QUEUE, Attempt

HERE = "192.0.2.1"
THERE = "2001:db8::/64"


class GuessLimitTests(SynchronousTestCase):
    """
    Tests for L{GuessLimit} with ten guesses a minute and one turn a second.
    """

    def setUp(self) -> None:
        """
        Create a limit, and a time in seconds.
        """
        self.limit = GuessLimit()
        self.now = 1000.0

    def enter(self, network: str = HERE, user: str = "alice") -> Attempt:
        """
        Begin a login attempt.
        """
        return self.limit.enter(network, user, self.now)

    def failAs(self, network: str = HERE, user: str = "alice", times: int = 1) -> None:
        """
        Fail to log in, without having to wait.
        """
        for _ in range(times):
            attempt = self.enter(network, user)
            self.assertTrue(attempt.granted)
            self.limit.failed(attempt, self.now)

    def succeed(self, network: str = HERE, user: str = "alice") -> None:
        """
        Log in, without having to wait.
        """
        attempt = self.enter(network, user)
        self.assertTrue(attempt.granted)
        self.limit.succeeded(attempt, self.now)

    def later(self, seconds: float) -> list[Attempt]:
        """
        Advance the time, and fail every login whose turn it is.

        @return: those logins.
        """
        until = self.now + seconds
        granted = []
        while (due := self.limit.nextTurn) is not None and due <= until:
            self.now = max(self.now, due)
            for attempt in self.limit.turns(self.now):
                granted.append(attempt)
                self.limit.failed(attempt, self.now)
        self.now = until
        return granted

    def attack(self, network: str = HERE, times: int = 10) -> None:
        """
        Fail with a different user name each time.
        """
        for number in range(times):
            self.failAs(network, f"guess {number}")

    def test_few(self) -> None:
        """
        With up to ten failures a minute nobody waits.
        """
        for _ in range(100):
            self.attack(times=10)
            self.later(WINDOW)
        self.assertIsNone(self.limit.nextTurn)

    def test_network(self) -> None:
        """
        After ten failures, a network's next logins are checked one a second.
        """
        self.attack()
        self.later(0.25)
        waiting = [self.enter(user="alice"), self.enter(user="bob")]
        self.assertEqual([each.granted for each in waiting], [False, False])
        self.assertEqual(self.later(0.74), [])
        self.assertEqual(self.later(0.02), waiting[:1])
        self.assertEqual(self.later(0.98), [])
        self.assertEqual(self.later(0.02), waiting[1:])

    def test_nobodyElse(self) -> None:
        """
        Logins from other networks do not wait.
        """
        self.attack(times=10)
        self.assertTrue(self.enter(THERE).granted)

    def test_window(self) -> None:
        """
        A minute after the failures nobody waits any longer.
        """
        self.attack()
        self.later(59.9)
        self.assertFalse(self.enter().granted)
        self.setUp()
        self.attack()
        self.later(WINDOW)
        self.succeed()

    def test_name(self) -> None:
        """
        When a user's password is guessed from many networks, logins by that name wait, except from
        networks where the user has logged in. Other users do not wait.
        """
        self.succeed(HERE, "alice")
        for number in range(10):
            self.failAs(f"198.51.100.{number}", "alice")
        self.assertFalse(self.enter("203.0.113.1", "alice").granted)
        self.succeed("203.0.113.1", "bob")
        for _ in range(100):
            self.succeed(HERE, "alice")

    def test_known(self) -> None:
        """
        A user who has logged in from a network within a day does not wait for others there.
        """
        self.succeed(user="bob")
        self.later(KNOWN_FOR)
        self.attack()
        self.succeed(user="bob")
        self.later(KNOWN_FOR + 1)
        self.attack()
        self.assertFalse(self.enter(user="bob").granted)

    def test_knownAndGuessed(self) -> None:
        """
        When others on that network guess the user's own password, the queue of the known pair lets
        a thousand logins through each second, and more if more wait.
        """
        self.succeed(user="bob")
        self.failAs(user="bob", times=10)
        for size, seconds in ((50, 0.051), (1000, 1.001), (2000, 1.001)):
            crowd = [self.enter(user="bob") for _ in range(size)]
            self.assertEqual([each.known for each in crowd], [True] * size)
            self.assertEqual(self.later(seconds), crowd)

    def test_late(self) -> None:
        """
        A busy server that looks only every 20 ms still lets a thousand logins of a known pair
        through each second. After a longer stall, it makes up for a tenth of a second at most.
        """
        self.succeed(user="bob")
        self.failAs(user="bob", times=10)
        for _ in range(300):
            self.enter(user="bob")

        def turns() -> int:
            for number in range(1000):
                granted = self.limit.turns(self.now)
                if not granted:
                    return number
                for attempt in granted:
                    self.limit.failed(attempt, self.now)
            raise AssertionError

        for pause, least, most in ((0.02, 18, 22), (0.02, 18, 22), (0.5, 95, 105)):
            self.now += pause
            self.assertIn(turns(), range(least, most))

    def test_successesAreFree(self) -> None:
        """
        Successful logins do not count as failures and do not cancel any.
        """
        self.attack(times=9)
        for number in range(50):
            self.succeed(user=f"user {number}")
        self.failAs()
        self.assertFalse(self.enter(user="carol").granted)
        self.succeed(user="user 1")
        self.assertFalse(self.enter(user="dave").granted)

    def test_undecided(self) -> None:
        """
        Logins that are being checked count as failures until they succeed, so simultaneous logins
        cannot exceed the limit. Each one that succeeds makes room for another.
        """
        crowd = [self.enter(user=f"user {number}") for number in range(30)]
        self.assertEqual([each.granted for each in crowd], [True] * 10 + [False] * 20)
        self.assertEqual(self.later(100), [])
        for each in crowd[:5]:
            self.limit.succeeded(each, self.now)
        self.assertEqual(self.limit.turns(self.now), crowd[10:15])
        self.assertEqual([held for each in crowd for held in each.held], [])

    def test_oneAfterAnother(self) -> None:
        """
        The next turn begins after the server has answered the previous login; it does not wait for
        the client's next message.
        """
        self.attack()
        first, second = self.enter(user="a"), self.enter(user="b")
        self.now += 1
        self.assertEqual(self.limit.turns(self.now), [first])
        self.now += 50
        self.assertEqual(self.limit.turns(self.now), [])
        self.limit.answered(first, self.now)
        self.limit.answered(first, self.now)
        self.assertEqual(self.limit.turns(self.now), [second])

    def test_strangersDoNotWaitForKnown(self) -> None:
        """
        A known user's login that is being checked does not block the queue of the network.
        """
        self.succeed(user="bob")
        self.attack()
        known, stranger = self.enter(user="bob"), self.enter(user="carol")
        self.assertTrue(known.granted)
        self.assertEqual(self.later(1), [stranger])

    def test_both(self) -> None:
        """
        A login that is held by its network and by its user name waits in both queues at once.
        """
        for number in range(10):
            self.failAs(f"198.51.100.{number}", "alice")
        self.attack()
        front = [self.enter(THERE, "alice") for _ in range(3)]
        attempt = self.enter(HERE, "alice")
        self.assertEqual(self.later(3.5), front)
        self.assertEqual(self.later(1), [attempt])

    def test_endsOnce(self) -> None:
        """
        Only the first outcome reported for a login counts.
        """
        attempt = self.enter()
        self.limit.failed(attempt, self.now)
        self.limit.succeeded(attempt, self.now)
        self.limit.failed(attempt, self.now)
        self.attack(times=9)
        self.assertFalse(self.enter().granted)

    def test_left(self) -> None:
        """
        A login that leaves the queue makes room, and does not count as a failure.
        """
        self.attack()
        crowd = [self.enter(user="a") for _ in range(50)]
        self.later(0.5)
        for each in crowd[:-1]:
            self.limit.failed(each, self.now)
        self.assertEqual(self.later(0.51), crowd[-1:])
        self.assertIsNone(self.limit.nextTurn)
        self.later(WINDOW - 1)
        self.attack(times=9)

    def test_forgotten(self) -> None:
        """
        A login that the server could not check does not count as a failure.
        """
        for _ in range(100):
            self.limit.forget(self.enter(), self.now)
        self.succeed()

    def test_longest(self) -> None:
        """
        No login waits longer than a hundred turns, no matter how many there are.
        """
        for size in (100, 101, 500):
            self.setUp()
            self.attack()
            first = self.now
            crowd = [self.enter(user="a") for _ in range(size)]
            self.later(QUEUE * 0.9)
            more = [self.enter(user="b") for _ in range(10)]
            self.assertEqual(self.later(first + QUEUE - self.now + 0.01)[-1:], crowd[-1:])
            self.later(QUEUE)
            self.assertTrue(all(each.granted for each in crowd + more))

    def test_faster(self) -> None:
        """
        A queue too long to be served in a hundred turns runs faster from its beginning.
        """
        self.attack()
        for _ in range(1000):
            self.enter(user="a")
        for _ in range(9):
            self.assertIn(len(self.later(10)), range(90, 111))

    def test_held(self) -> None:
        """
        The first login in a minute that is held by a network or user name reports it.
        """
        self.attack()
        self.assertEqual(self.enter(user="a").held, [f"network {HERE}"])
        self.assertEqual(self.enter(user="b").held, [])
        self.later(30)
        self.assertEqual(self.enter(user="c").held, [])
        self.later(WINDOW)
        self.attack()
        self.assertEqual(self.enter(user="d").held, [f"network {HERE}"])
        self.later(1)
        for number in range(10):
            self.failAs(f"198.51.100.{number}", "bob")
        self.assertEqual(self.enter(THERE, "bob").held, ["user 'bob'"])

    def test_noDelay(self) -> None:
        """
        With a delay of 0, logins are checked one after another without a pause.
        """
        self.limit.delay = 0
        self.attack()
        crowd = [self.enter(user="a") for _ in range(3)]
        self.assertEqual(self.later(0), crowd)

    def test_tables(self) -> None:
        """
        Each table is bounded; the network that failed longest ago is dropped first.
        """
        self.patch(loginbooks, "TABLE_MAX", 5)
        books = Books()
        self.limit = GuessLimit(books=books)
        for number in range(6):
            self.attack(f"198.51.100.{number}")
            self.now += 1
        self.assertTrue(self.enter("198.51.100.0", "a").granted)
        self.assertFalse(self.enter("198.51.100.5", "a").granted)
        self.assertFalse(self.enter("198.51.100.1", "a").granted)
        for number in range(20):
            self.succeed(f"203.0.113.{number}")
            self.failAs(f"203.0.113.{number}", f"user {number}", times=2)
        for table in (books.networks, books.names, books.pairs):
            self.assertEqual(len(table), 5)

    def test_forgottenWhileWaiting(self) -> None:
        """
        Logins in the queue of a network that is dropped from its table still get their turn.
        """
        self.patch(loginbooks, "TABLE_MAX", 2)
        books = Books()
        self.limit = GuessLimit(books=books)
        self.attack()
        crowd = [self.enter(user="a") for _ in range(3)]
        for number in range(3):
            self.failAs(f"198.51.100.{number}")
        self.assertIsNone(books.networks.find(books.key(HERE)))
        self.assertEqual(self.later(3.01), crowd)

    def test_namesThatFailOnce(self) -> None:
        """
        A name that fails once is stored only as a keyed hash, so made-up names cannot push others
        out of the table.
        """
        keys = []
        for _time in range(2):
            memory = Books.prepare(mmap(-1, Books.size()))
            books = Books(memory)
            self.limit = GuessLimit(books=books)
            self.attack("198.51.100.1", 4)
            self.assertEqual(len(books.names), 0)
            self.assertEqual(memory.find(b"guess"), -1)
            keys.append(books.key("", "guess 3"))
            self.assertNotEqual(memory.find(keys[-1]), -1)
        self.assertNotEqual(*keys)
        # The hash of an earlier failure may have been overwritten, though rarely.
        self.failAs("198.51.100.2", "guess 3")
        self.assertEqual(len(books.names), 1)
        self.later(WINDOW)
        self.failAs("198.51.100.2", "guess 2")
        self.assertEqual(len(books.names), 1)

    def test_nothingIsKept(self) -> None:
        """
        Of a user who logs in at the first try, only the known pair is stored.
        """
        books = Books()
        self.limit = GuessLimit(books=books)
        for number in range(100):
            self.succeed(f"198.51.100.{number}", f"user {number}")
        self.assertEqual((len(books.networks), len(books.names)), (0, 0))
        self.assertEqual(len(books.pairs), 100)
        self.assertEqual(self.limit._suspects, {})


NETWORKS = st.sampled_from(["a", "b", "c"])
USERS = st.sampled_from(["alice", "bob", "carol", "dave"])
GUESSES = 3


class GuessMachine(RuleBasedStateMachine):
    """
    Clients connect, wait, fail, succeed and leave in any order.
    """

    attempts = Bundle("attempts")

    @initialize()
    def begin(self) -> None:
        """
        Create a limit that has seen no logins.
        """
        self.books = Books()
        self.limit = GuessLimit(GUESSES, 1.0, self.books)
        self.now = 0.0
        self.open: list[Attempt] = []
        self.failures: list[tuple[str, str, float]] = []
        self.logins: dict[tuple[str, str], float] = {}
        self.lastGranted = dict.fromkeys("abc", float("-inf"))

    def suspicions(self, network: str, user: str | None = None) -> int:
        """
        @return: how many logins from a network, as a user, have failed or may fail.
        """
        failed = sum(
            where == network and user in (None, who) and int(self.now) - int(at) < WINDOW
            for where, who, at in self.failures
        )
        return failed + sum(
            each.network == network and user in (None, each.user) and each.granted
            for each in self.open
        )

    @rule(target=attempts, network=NETWORKS, user=USERS)
    def enter(self, network: str, user: str) -> Attempt:
        """
        A client begins a login, which is granted or held as the limit's rules say.
        """
        before, own = self.suspicions(network), self.suspicions(network, user)
        names = sum(who == user for _where, who, _at in self.failures)
        known = self.logins.get((network, user), float("-inf")) >= self.now - KNOWN_FOR
        waits = [each for each in self.open if each.network == network and not each.granted]
        attempt = self.limit.enter(network, user, self.now)
        if known and own < GUESSES and not any(each.user == user for each in waits):
            assert attempt.granted, "a known pair waits for others"
        if not known and before >= GUESSES:
            assert not attempt.granted, "one guess too many"
        if before < GUESSES and names < 2 and not waits:
            assert attempt.granted, "it waits for nothing"
        self.open.append(attempt)
        if attempt.granted and not known:
            self.lastGranted[network] = self.now
        return attempt

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.0, 7.0, 59.0, KNOWN_FOR]))
    def wait(self, seconds: float) -> None:
        """
        Time passes, and the server answers every login at once.
        """
        until = self.now + seconds
        for each in self.open:
            self.limit.answered(each, self.now)
        while (due := self.limit.nextTurn) is not None and due <= until:
            # The turn of a known pair may be late.
            assert due > self.now - 0.101
            self.now = max(due, self.now)
            granted = self.limit.turns(self.now)
            while granted:
                self.granted(granted.pop(), granted)
        self.now = until

    def granted(self, attempt: Attempt, before: list[Attempt]) -> None:
        """
        Check that a login's turn did not come too early, and answer it.

        @param before: the logins that were granted at the same time, just before.
        """
        network = attempt.network
        self.limit.answered(attempt, self.now)
        if (network, attempt.user) in self.logins:
            return
        last, self.lastGranted[network] = self.lastGranted[network], self.now
        # The login counts itself.  One that also waited for its name may follow the last at once.
        if (
            self.suspicions(network) > GUESSES
            and not any(each.network == network for each in before)
            and len(attempt.queues) == 1
        ):
            waited = self.now - attempt.entered
            assert self.now - last > 0.999 or waited > QUEUE - 0.001, "too early"

    @rule(attempt=attempts, outcome=st.sampled_from(["failed", "succeeded", "forget"]))
    def end(self, attempt: Attempt, outcome: str) -> None:
        """
        A login ends, perhaps for the second time.
        """
        if outcome == "succeeded" and not attempt.granted:
            return
        if attempt in self.open:
            self.open.remove(attempt)
            if outcome == "failed" and attempt.granted:
                self.failures.append((attempt.network, attempt.user, self.now))
            if outcome == "succeeded":
                self.logins[attempt.network, attempt.user] = self.now
        getattr(self.limit, outcome)(attempt, self.now)

    @invariant()
    def nobodyWaitsForEver(self) -> None:
        """
        No login waits longer than a hundred turns, if the server answers the others.
        """
        for each in self.open:
            assert each.granted or self.now - each.entered <= QUEUE + 1

    @invariant()
    def theNumbersAgree(self) -> None:
        """
        The counts kept for each network agree with what happened there.
        """
        for network in "abc":
            mine = [each for each in self.open if each.network == network]
            failed = sum(where == network for where, _who, _at in self.failures)
            source = self.limit._suspects.get(self.books.key(network))
            assert (source is None) == (not mine)
            if source is not None:
                assert source.undecided == sum(each.granted for each in mine)
                assert 0 <= source.unanswered <= source.undecided
            row = self.books.networks.find(self.books.key(network))
            assert row is None or mine or failed
        for _due, _number, source in self.limit._dues:
            assert source.due is None or source.waiting


class AnyOrderTests(SynchronousTestCase):
    """
    Tests for L{GuessLimit} in any order of events.
    """

    def test_machine(self) -> None:
        """
        The rules hold in any order of events.
        """
        run_state_machine_as_test(
            GuessMachine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
        )
