"""
Runs functions in their own processes, so that attacks and measurements do not share an interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar, cast

__all__ = ["Worker"]

_T = TypeVar("_T")
_READY = "ready"


class Worker(Generic[_T]):
    """
    One such process.

    @ivar pipe: in the process: becomes readable when it is told to finish.
    """

    def __init__(self, function: Callable[[Worker[_T]], _T]) -> None:
        """
        @param function: called in the process with this object; its result is sent back.
        """
        self._function = function
        ours, theirs = multiprocessing.Pipe()
        self.pipe: Connection[Any, Any] = theirs
        self._ours: Connection[Any, Any] = ours
        self._process = multiprocessing.get_context("fork").Process(target=self._run)
        self._process.start()
        theirs.close()

    def _run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._ours.close()
        try:
            self.pipe.send((True, self._function(self)))
        except BaseException:  # noqa: BLE001 - it is told to the parent
            self.pipe.send((False, traceback.format_exc()))
        os._exit(0)

    def ready(self) -> None:
        """
        In the process: report that it has begun.
        """
        self.pipe.send((None, _READY))

    @property
    def told(self) -> bool:
        """
        In the process: whether it has been told to finish.
        """
        return bool(self.pipe.poll())

    @property
    def running(self) -> bool:
        """
        Whether its result has not arrived yet.
        """
        return not self._ours.poll() and self._process.is_alive()

    def waitReady(self, timeout: float = 20.0) -> None:
        """
        Wait for L{ready}.
        """
        state, said = self._receive(timeout)
        if state is not None:
            self._end()
            raise AssertionError(f"did not begin: {said}")

    def result(self, timeout: float) -> _T:
        """
        Wait for the function to return.

        @raise AssertionError: when it did not return in time, or raised; then with the traceback.
        """
        try:
            state, said = self._receive(timeout)
        finally:
            self._end()
        if not state:
            raise AssertionError(f"failed in its process: {said}")
        return cast(_T, said)

    def finish(self, timeout: float) -> _T:
        """
        Tell the process to finish, and wait for its result.
        """
        if self._process.is_alive():
            self._ours.send(None)
        return self.result(timeout)

    def _receive(self, timeout: float) -> tuple[bool | None, object]:
        if not self._ours.poll(timeout):
            return False, f"nothing came within {timeout:g} s"
        try:
            return cast(tuple[bool | None, object], self._ours.recv())
        except EOFError:
            return False, "it ended without a word"

    def _end(self) -> None:
        deadline = time.monotonic() + 2
        while self._process.is_alive() and time.monotonic() < deadline:
            self._process.join(0.01)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._ours.close()
