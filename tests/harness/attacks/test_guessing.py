"""
Short forms of the attacks on logins.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import partial
from statistics import median

from tests.harness.attacks import guessing
from tests.harness.attacks.case import AttackTestCase
from tests.harness.attacks.catalogue import LOGIN, STRANGER
from tests.harness.attacks.honest import quantile
from tests.harness.attacks.targets import KaTarget
from tests.interop.servers import twistdCommand

FAILED = "failed to log in as"


class GuessingTests(AttackTestCase):
    """
    Tests for guessing passwords on the UNIX socket that honest users of the same machine use.
    """

    def users(self, *arguments: str, iterations: int | None = None) -> KaTarget:
        """
        @return: a kaserver with two users.
        """
        target = KaTarget(*arguments, login=LOGIN, others=[STRANGER], iterations=iterations)
        self.target(target)
        return target

    def test_stranger(self) -> None:
        """
        Beside 20 guessers that wait for their answers, a user who has not logged in before waits
        for as many turns; one who has logs in at once.  The guesses are answered one turn apart.
        """
        target = self.users("--auth-delay=0.1")
        flood = partial(guessing.flood, target.address, 20, 4.5, "mallory")
        stranger = partial(guessing.logIn, target.address, STRANGER, 1, 10)
        result = self.attack(target, flood, stranger)
        (seconds,) = result.outcomes[1].seconds
        self.assertGreater(seconds, 1)
        self.assertLess(seconds, 3.5)
        self.assertLess(max(result.honest.newcomers), 1)
        self.assertLess(result.outcomes[0].times, 10 + 45 + 10)

    def test_crowd(self) -> None:
        """
        Beside 250 guessers the user waits for a hundred turns: the queue speeds up, and refuses
        nobody.
        """
        target = self.users("--auth-delay=0.03")
        flood = partial(guessing.flood, target.address, 250, 5, "mallory")
        stranger = partial(guessing.logIn, target.address, STRANGER, 1, 10)
        result = self.attack(target, flood, stranger)
        self.assertLess(result.outcomes[1].seconds[0], 3 + 1)
        self.assertLess(result.outcomes[0].times, 10 + 250 / 3 * 5 * 1.2)

    def test_bound(self) -> None:
        """
        C{--max-anonymous-clients} bounds the queue: the oldest connection is closed, and the log
        says why.
        """
        target = self.users("--auth-delay=1", "--max-anonymous-clients=50")
        flood = partial(guessing.flood, target.address, 80, 3, "mallory")
        result = self.attack(target, flood, newcomers=False)
        self.assertIn("too many clients", result.log)
        self.assertLess(result.outcomes[0].times, 10 + 3 + 1)

    def test_known(self) -> None:
        """
        Thousands of guesses per second at the password of a user who has logged in before, on new
        connections, delay neither that user nor a stranger, and leave only a few lines in the log.
        The user's password is checked about as fast as a call is answered.
        """
        target = self.users()
        churn = partial(guessing.churn, target.address, 20, 4)
        stranger = partial(guessing.logIn, target.address, STRANGER, 1, 10)
        checks = partial(guessing.checks, target.address, LOGIN, 4)
        result = self.attack(target, churn, stranger, checks)
        self.assertGreater(result.outcomes[0].times, 1000)
        usual = max(quantile(result.honest.latencies, 0.5), 0.005)
        self.assertLess(median(result.outcomes[2].seconds) / usual, 4)
        self.assertLess(result.log.count("\n"), 1200)

    def test_knownAndHashed(self) -> None:
        """
        A known user does not wait while strangers' guesses are hashed.
        """
        target = self.users(iterations=600_000)
        quiet = guessing.logInQuietly(target.address, LOGIN, 3)
        outcome = guessing.burst(target.address, 9, LOGIN)
        self.assertLess(outcome.seconds[0] / quiet, 3)

    def test_hashing(self) -> None:
        """
        While passwords are checked with 600,000 iterations, other clients are served.
        """
        target = self.users("--auth-delay=0.1", iterations=600_000)
        flood = partial(guessing.flood, target.address, 12, 3, "mallory")
        self.attack(target, flood, newcomers=False)

    def test_hostileNames(self) -> None:
        """
        Names and passwords that SASLprep makes 18 times as long cost little processor time.
        """
        target = self.users()
        names = partial(guessing.hostileNames, target.address, 10, 2)
        result = self.attack(target, names, newcomers=False)
        self.assertGreater(result.outcomes[0].times, 300)
        meter = result.meter
        spent = meter.last.processor - meter.before.processor
        self.assertLess(spent / result.outcomes[0].times, 0.004)
        self.assertNotIn("\ufdfa" * 100, result.log)

    def test_challenges(self) -> None:
        """
        A client that begins SCRAM and leaves counts as a failed login.
        """
        target = self.users("--auth-delay=0.1")
        challenges = partial(guessing.challenges, target.address, 10, 2)
        result = self.attack(target, challenges)
        self.assertLess(max(result.honest.newcomers), 1)
        self.assertIn("10 logins failed within 60 s (--auth-guesses)", result.log)

    def test_hostileFiles(self) -> None:
        """
        An invalid file of users is a start-up error of one line, which has the line number and no
        secret.
        """
        directory = self.enterContext(tempfile.TemporaryDirectory())
        started = []
        for number, (kind, content, words) in enumerate(
            [
                ("file", b"alice:$6$salt$sesame", "line 1: what follows the colon looks like"),
                ("file", b"#\nalice:x:0:0:sesame", "line 2: there are two colons"),
                ("file", b"\xff\xfea\0:\0s\0e\0s\0a\0m\0e\0", "line 1: there is a NUL byte"),
                ("file", None, "it is not a regular file"),
                ("scram", None, "it is not a regular file"),
            ]
        ):
            path = os.path.join(directory, str(number))
            if content is None:
                os.mkfifo(path)
            else:
                with open(path, "wb") as file:
                    file.write(content)
            listen = f"--listen=unix:{directory}/socket"
            server = subprocess.Popen(
                [*twistdCommand(), "-n", "--pidfile=", "kaserver", f"--auth={kind}:{path}", listen],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=directory,
            )
            self.addCleanup(server.kill)
            started.append((server, f"--auth={kind}: {path}", words))
        for server, option, words in started:
            said, _ = server.communicate(timeout=20)
            self.assertNotEqual(server.returncode, 0)
            self.assertIn(option, said)
            self.assertIn(words, said)
            self.assertNotIn("sesame", said)
            self.assertNotIn("Traceback", said)
