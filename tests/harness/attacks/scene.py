"""
Runs attacks on a server, with honest clients beside them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, Self

from tests.harness.attacks.honest import Honest, Report
from tests.harness.attacks.measure import Meter, fileCount
from tests.harness.attacks.rawsocket import Outcome, RawPeer
from tests.harness.attacks.targets import Target, until
from tests.harness.attacks.workers import Worker
from tests.interop import wire
from tests.interop.support import VIRSH, privateEnvironment

__all__ = ["Result", "Virsh", "play"]

_LOOK_EVERY = 0.02


class Result(NamedTuple):
    """
    The result of a run.

    @ivar outcomes: what happened to the peers of each attack.
    @ivar meter: the server's memory, files and processor time.
    @ivar honest: what the honest clients measured.
    @ivar log: what the server logged during the run.
    @ivar leftFiles: how many more files the server has open than before.
    @ivar virsh: whether a virsh stayed connected; C{None} if there was none.
    """

    outcomes: Sequence[Outcome]
    meter: Meter
    honest: Report
    log: str
    leftFiles: int
    virsh: bool | None = None


class Virsh:
    """
    An honest virsh that stays connected.
    """

    def __init__(self, target: Target) -> None:
        self._process = subprocess.Popen(
            [VIRSH, "-c", f"test+tcp://127.0.0.1:{target.address}/default"],
            env=privateEnvironment(target.directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write("hostname\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self._process.kill()
        self._process.communicate()

    def waitConnected(self) -> None:
        """
        Wait until its first call has been answered.
        """
        assert self._process.stdout is not None
        name = os.uname().nodename
        while name not in self._process.stdout.readline():
            assert self._process.poll() is None, "virsh has ended"

    def end(self) -> str:
        """
        Make another call, and end.

        @return: its output.
        """
        said, _ = self._process.communicate("hostname\nquit\n", timeout=20)
        return said

    def stayed(self) -> bool:
        """
        Make another call, and end.

        @return: whether it was connected all the time.
        """
        try:
            said = self.end()
        except subprocess.TimeoutExpired:
            return False
        return self._process.returncode == 0 and "onnected" not in said and "error" not in said


def play(
    target: Target,
    attacks: Sequence[Callable[[], Outcome]],
    seconds: float,
    *,
    virsh: bool = False,
    newcomers: bool = True,
    settles: bool = True,
) -> Result:
    """
    Run attacks beside honest clients, and measure their effect on the server and the clients.

    @param attacks: the attacks, which run at the same time.
    @param seconds: the most seconds they may take.
    @param virsh: whether a virsh is among the honest clients.
    @param newcomers: whether newcomers connect during the attack.
    @param settles: whether to count the files that the server still has open after the attack.
    """
    with ExitStack() as stack:
        begun = len(target.log)
        probe = RawPeer(target.address)
        probe.reply(probe.sendCall(wire.AUTH_LIST))
        resting = fileCount(target.pid) - 1
        probe.socket.close()
        friend = stack.enter_context(Virsh(target)) if virsh else None
        honest = Honest(target.address, target.login, newcomers=newcomers)
        time.sleep(0.3)
        meter = Meter(target.pid)
        workers = [Worker(partial(_attack, attack)) for attack in attacks]
        deadline = time.monotonic() + seconds + 20
        while any(worker.running for worker in workers) and time.monotonic() < deadline:
            meter.look()
            time.sleep(_LOOK_EVERY)
        outcomes = [worker.result(1) for worker in workers]
        report = honest.stop()
        stayed = friend.stayed() if friend is not None else None
    left = _filesLeft(target, resting) if settles else 0
    return Result(outcomes, meter, report, target.log[begun:], left, stayed)


def _attack(attack: Callable[[], Outcome], _worker: Worker[Outcome]) -> Outcome:
    return attack()


def _filesLeft(target: Target, before: int) -> int:
    def extra() -> int:
        return max(0, fileCount(target.pid) - before)

    try:
        until(lambda: extra() == 0, "the connections to be gone", 5)
    except AssertionError:
        return extra()
    return 0
