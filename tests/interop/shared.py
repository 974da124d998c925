"""
Kaservers that several tests use one after the other, to save starting them.

They are only for tests that neither stop, signal nor overload their server.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from typing import Final

from tests.interop.servers import twistdCommand
from tests.interop.support import waitUntil

__all__ = ["SharedServer"]

_LISTENING: Final = re.compile(r"listening on [^\n]*127\.0\.0\.1:(\d+)")

_running: Final[dict[tuple[str, ...], _Process]] = {}


class _Process:
    """
    A kaserver that runs until all tests have ended.

    It is not a process of the reactor, since trial checks after each test that the reactor is
    clean.  It writes to a file, so that nothing has to read its output between tests.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self._folder = tempfile.mkdtemp(prefix="kaproto-")
        self._path = os.path.join(self._folder, "log")
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver"]
        command += ["--listen=tcp:0:interface=127.0.0.1", *arguments]
        with open(self._path, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> bytes:
        """
        @return: all of its output.
        @raise AssertionError: when it has ended, which no test that shares it may cause.
        """
        with open(self._path, "rb") as file:
            text = file.read()
        if self._process.poll() is not None:
            raise AssertionError(f"the shared kaserver ended: {text.decode()}")
        return text


class SharedServer:
    """
    One test's view of a kaserver that other tests use too.

    @ivar port: the loopback port that it listens on.
    """

    def __init__(self, process: _Process, port: int) -> None:
        self._process = process
        self._before = len(process.log())
        self.port = port

    @classmethod
    async def get(cls, *arguments: str) -> SharedServer:
        """
        @param arguments: the arguments of C{kaserver}, besides the endpoint.
        @return: the server that runs with these arguments, started if necessary.
        """
        process = _running.get(arguments)
        if process is None:
            process = _running[arguments] = _Process(arguments)
        match = await waitUntil(
            lambda: _LISTENING.search(process.log().decode()), "kaserver to listen", timeout=20
        )
        return cls(process, int(match[1]))

    @property
    def uri(self) -> str:
        """
        The URI for virsh.
        """
        return f"test+tcp://127.0.0.1:{self.port}/default"

    @property
    def log(self) -> str:
        """
        What it has logged since this test got it.
        """
        return self._process.log()[self._before :].decode()
