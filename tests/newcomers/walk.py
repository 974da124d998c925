"""
Types the commands of a page, and compares what they print with what the page shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.pages import DOCS, Block, Typed, blocksIn, sameShape, typed

__all__ = ["Running", "Walk", "WentAstray"]

_POLL = 0.05


class WentAstray(AssertionError):
    """
    What happened is not what the page shows.
    """

    def __init__(self, command: str, shown: str, real: str) -> None:
        super().__init__(f"{command}\n--- shown\n{shown}\n--- real\n{real}")


class Running:
    """
    A command that runs in a terminal of its own.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """
        Its process.
        """
        return self._process.pid

    @property
    def output(self) -> str:
        """
        What it has printed so far.
        """
        return self._log.read_text("utf-8")

    def finish(self, timeout: float) -> int:
        """
        Wait for its end.

        @return: its exit code.
        """
        return self._process.wait(timeout)

    def stop(self) -> None:
        """
        End it, whatever it does.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Walk:
    """
    A way through the pages.

    @ivar folder: where the commands are typed.
    @ivar replaced: what is to be typed differently here, such as a port that is in use.
    @ivar steps: each command that was typed, and the seconds until it had done what is shown.
    """

    def __init__(
        self, folder: Path, patience: float = 20.0, say: Callable[[str], object] = len
    ) -> None:
        """
        @param patience: the most seconds that a step may take.
        @param say: is told of each step.
        """
        self.replaced: dict[str, str] = {}
        self.steps: list[tuple[str, float]] = []
        self.folder = folder
        self._patience = patience
        self._say = say
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self._running.close()

    def run(self, page: str, start: str) -> None:
        """
        Type a command, until it prints what is shown: one typed too early, such as a list of
        clients before the first ping, may be typed again.

        @param page: below C{docs}.
        @param start: how the command begins; of several, the shortest is typed.
        @raise WentAstray: when that does not happen.
        """
        self.do(self._find(page, start))

    def runAll(self, page: str, start: str) -> None:
        """
        Type all commands of a page that begin like this, in order.

        @raise WentAstray: when one does not print what is shown.
        """
        for step in self._steps(page, start):
            self.do(step)

    def start(self, page: str, start: str) -> Running:
        """
        Type a command in a terminal of its own, and wait until it has printed what is shown.

        @raise WentAstray: when that does not happen.
        """
        step = self._here(self._find(page, start))
        with self._timed(step.command):
            running = self._spawn(step.command)
            self._until(step, lambda _command: running.output)
        return running

    def logged(self, running: Running, page: str, start: str) -> None:
        """
        Wait until a block of the page has been printed.

        @raise WentAstray: when that does not happen.
        """
        (block,) = (each for each in self._blocks(page) if each.text.startswith(start))
        with self._timed(f"({start})"):
            self._until(Typed(start, f"...{block.text}"), lambda _command: running.output)

    def do(self, step: Typed) -> None:
        """
        Type a command that is in no console block.

        @raise WentAstray: when it does not print what it should, or fails.
        """
        step = self._here(step)
        with self._timed(step.command):
            self._until(step, self._once)

    def _once(self, command: str) -> str:
        running = self._spawn(command)
        code = running.finish(self._patience)
        return f"{running.output}\nexit code {code}"

    def _until(self, step: Typed, act: Callable[[str], str]) -> None:
        """
        @param act: types the command, or looks at what it has printed.
        """
        shown = f"{step.output}..." if step.output else "...exit code 0"
        deadline = time.monotonic() + self._patience
        while not sameShape(shown, output := act(step.command)):
            if time.monotonic() > deadline:
                raise WentAstray(step.command, shown, output)
            time.sleep(_POLL)

    def _spawn(self, command: str) -> Running:
        path = f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        log = self.folder / f"terminal{len(self.steps)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, log)
        self._running.callback(running.stop)
        return running

    def _find(self, page: str, start: str) -> Typed:
        return min(self._steps(page, start), key=lambda each: len(each.command))

    def _steps(self, page: str, start: str) -> Iterator[Typed]:
        steps = (each for block in self._blocks(page) for each in typed(block))
        return (each for each in steps if each.command.startswith(start))

    def _here(self, step: Typed) -> Typed:
        command, output = step
        for old, new in self.replaced.items():
            command, output = command.replace(old, new), output.replace(old, new)
        return Typed(command, output)

    @staticmethod
    def _blocks(page: str) -> list[Block]:
        path = DOCS / page
        return list(blocksIn(path, path.read_text("utf-8")))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.steps.append((what, seconds))
        self._say(f"{seconds:6.2f} s  {what}")
