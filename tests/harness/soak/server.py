"""
The kaserver of a soak: its process, what it reports about itself, and what the kernel reports.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import attrs

from tests.harness.soak.judge import Excuses

__all__ = ["Inside", "Server"]

_LISTENING: Final = re.compile(r"listening on (?:tcp|tls[^:]*?) 127\.0\.0\.1:(\d+)")
_DEAD: Final = re.compile(r" is dead: ")
_NOT_IN_ORDER: Final = re.compile(r"Traceback|Unhandled|\bdropped |\brefused |failed when called")
_PATIENCE: Final = 30.0
_STARVED: Final = 0.4
_CATCH_UP: Final = 0.5


@attrs.frozen
class Inside:
    """
    What was counted in the process.

    @ivar memory: resident memory in KiB.
    @ivar descriptors: open files.
    @ivar timers: delayed calls of the reactor.
    @ivar selectables: the reactor's readers and writers.
    @ivar watching: watched connections.
    @ivar connected: connections.
    @ivar objects: all objects tracked by the garbage collector, if they were counted.
    @ivar types: the objects of each type of kaproto's and Twisted's, if they were counted.
    @ivar entries: the entries of all containers, if they were counted.
    """

    memory: int
    descriptors: int
    timers: int
    selectables: int
    watching: int
    connected: int
    objects: int = 0
    types: Counter[str] = attrs.Factory(Counter)
    entries: int = 0


class Server:
    """
    A C{twistd -n kaserver --mode=2} in its own process.

    @ivar ports: the loopback ports it listens on.
    @ivar sampled: when L{sample} was last called, on the monotonic clock.
    @ivar excuses: when it could not run, because it was stopped or other processes had the
        processor.
    """

    def __init__(
        self,
        folder: str,
        interval: float,
        count: int,
        arguments: Sequence[str] = (),
        mutant: str = "",
    ) -> None:
        """
        Start it, and wait until it listens.

        @param folder: the folder for its log and its reports.
        @param arguments: more arguments for it.
        @param mutant: the name of its defect, C{""} for none.
        @raise RuntimeError: when it does not start.
        """
        self.logPath = os.path.join(folder, "kaserver.log")
        self._probePath = os.path.join(folder, "probes")
        command = [sys.executable, "-m", "tests.harness.soak.serve", self._probePath, mutant]
        command += ["-n", "--pidfile=", "kaserver", "--mode=2", f"--interval={interval:g}"]
        command += [f"--count={count}", "--listen=tcp:0:backlog=4096:interface=127.0.0.1"]
        command += arguments
        project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
        with open(self.logPath, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        self.excuses = Excuses()
        self._answers: list[str] = []
        self._stopped: float | None = None
        self.sampled = time.monotonic()
        self._waited = self._waitedForProcessor()
        try:
            self.ports = self._waitListening(sum(each.startswith("--listen=") for each in command))
        except BaseException:
            self.end()
            raise

    def _waitListening(self, count: int) -> list[int]:
        deadline = time.monotonic() + _PATIENCE
        while len(found := _LISTENING.findall(self.log())) < count:
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"kaserver does not listen:\n{self.log()[-2000:]}")
            time.sleep(0.02)
        return [int(port) for port in found]

    @property
    def running(self) -> bool:
        """
        Whether the process runs.
        """
        return self._process.poll() is None

    def log(self) -> str:
        """
        @return: the log so far.
        """
        with open(self.logPath, encoding="utf-8", errors="replace") as file:
            return file.read()

    def deaths(self) -> int:
        """
        @return: how many deaths it has logged.
        """
        return len(_DEAD.findall(self.log()))

    def complaints(self) -> list[str]:
        """
        @return: the lines of the log that should not be there.
        """
        return [line for line in self.log().splitlines() if _NOT_IN_ORDER.search(line)]

    def ask(self, *, thorough: bool = False) -> None:
        """
        Request a report from the process, which L{answer} returns.

        @param thorough: whether to collect garbage and count objects.
        """
        self._answers = self._lines()
        os.kill(self.pid, signal.SIGUSR2 if thorough else signal.SIGUSR1)

    def _lines(self) -> list[str]:
        try:
            with open(self._probePath, encoding="ascii") as file:
                text = file.read()
        except FileNotFoundError:
            return []
        # The last line may be incomplete.
        return text.split("\n")[:-1]

    def answer(self) -> Inside | None:
        """
        @return: the requested report, C{None} until it arrives.
        """
        lines = self._lines()
        if len(lines) <= len(self._answers):
            return None
        told: dict[str, Any] = json.loads(lines[-1])
        told["types"] = Counter(told.get("types"))
        return Inside(memory=self.memory(), **told)

    def look(self, *, thorough: bool = False) -> Inside:
        """
        Request a report, and wait for it.

        @raise RuntimeError: when none arrives.
        """
        self.ask(thorough=thorough)
        deadline = time.monotonic() + _PATIENCE
        while (inside := self.answer()) is None:
            if time.monotonic() > deadline:
                raise RuntimeError("kaserver does not tell what there is in it")
            time.sleep(0.01)
        return inside

    def memory(self) -> int:
        """
        @return: resident memory in KiB.
        """
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def processorTime(self) -> float:
        """
        @return: the seconds of processor time it has used.
        """
        with open(f"/proc/{self.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9

    def _waitedForProcessor(self) -> float:
        with open(f"/proc/{self.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9

    def sample(self, now: float) -> None:
        """
        Measure how long it waited for a processor since the last call; to be called several times a
        second.  If that is long, it is an excuse.
        """
        if now <= self.sampled or self._stopped is not None:
            return
        waited = self._waitedForProcessor()
        if waited - self._waited > _STARVED * (now - self.sampled):
            self.excuses.add(max(self.sampled, now - (waited - self._waited)), now)
        self.sampled, self._waited = now, waited

    def stop(self) -> None:
        """
        Stop the process, like a suspended machine.
        """
        self._stopped = time.monotonic()
        os.kill(self.pid, signal.SIGSTOP)

    def go(self) -> None:
        """
        Continue the process.
        """
        os.kill(self.pid, signal.SIGCONT)
        if self._stopped is not None:
            now = time.monotonic()
            # What has arrived meanwhile must be read and answered, for all clients at once.
            self.sampled = now + _CATCH_UP
            self.excuses.add(self._stopped, self.sampled)
            self._stopped = None

    def end(self) -> None:
        """
        Kill the process, even if it is stopped.
        """
        self._process.kill()
        self._process.wait()
