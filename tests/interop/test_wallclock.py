"""
Stepping the wall clock neither ends connections nor keeps dead ones open.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from datetime import datetime

from tests.interop import libraryprogram, steppedclock, wire
from tests.interop.programs import Program, startVirsh
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer
from tests.interop.support import InteropTestCase, pause, together, waitUntil

_INTERVAL = 0.5
_COUNT = 2
_DEATH = _INTERVAL * (_COUNT + 1)
_OPEN_TIMEOUT = 2
_HOUR = 3600


class WallClockTests(InteropTestCase):
    """
    Tests for processes whose wall clock can be stepped, but no other clock.
    """

    async def _checkStep(self, seconds: int) -> None:
        """
        Step the server's clock, with a virsh, a client that answers pings, one that will stop
        answering, and one that never opens.
        """
        offset = os.path.join(self.privateDirectory(), "offset")
        _write(offset, 0)
        server = await KaServer.start(
            self,
            "--mode=2",
            f"--interval={_INTERVAL}",
            f"--count={_COUNT}",
            f"--open-timeout={_OPEN_TIMEOUT}",
            twistd=[sys.executable, steppedclock.__file__, offset],
        )
        virsh = startVirsh(self, "-k", "1", "-K", "2", "-c", server.uri)
        await virsh.waitOutput("virsh # ")
        alive, silent = [await RawClient.connect(self, server.port) for _client in range(2)]
        for client in (alive, silent):
            await client.open()
        await waitUntil(lambda: alive.pings and silent.pings, "both clients to be pinged")
        mute = await RawClient.connect(self, server.port)
        connected = time.monotonic()

        _write(offset, seconds)
        stepped = time.monotonic()
        await pause(_DEATH + _INTERVAL)
        self.assertIsNone(silent.lostAt, "the step killed a client that answers")
        # The pings keep their pace: there is no burst, and no gap until the wall clock catches up.
        pings = [frame.at for frame in alive.pings if frame.at > stepped]
        self.assertIn(len(pings), range(3, 6))
        self.assertApproximates(await mute.waitLost() - connected, _OPEN_TIMEOUT, 0.5)

        silent.answering = False
        assert silent.wroteAt is not None
        self.assertApproximates(await silent.waitLost() - silent.wroteAt, _DEATH, 0.3)

        self.assertIsNone(alive.lostAt)
        await alive.succeed(wire.GET_HOSTNAME)
        match = await virsh.ask("hostname", r"hostname\n(.*)\n")
        self.assertEqual(match[1], socket.gethostname())
        self.assertNotIn("isconnected", virsh.output)
        await waitUntil(lambda: " is dead: " in server.log, "the death in the log")
        self.assertApproximates(_fast(server.log, " is dead: "), seconds, 60)
        server.program.signal(signal.SIGTERM)
        self.assertEqual((await server.program.finish(3)).signal, signal.SIGTERM)

    async def _checkLibrary(self, seconds: int) -> None:
        """
        Step the clock of a server and a client that use only the library, each with peers that stay
        alive and that stop answering.
        """
        offset = os.path.join(self.privateDirectory(), "offset")
        _write(offset, 0)
        script = [sys.executable, steppedclock.__file__, offset, libraryprogram.__file__]
        server = Program.start(self, [*script, "serve", str(_INTERVAL), str(_COUNT)], os.environ)
        port = int((await server.waitOutput(r"port (\d+)", timeout=20))[1])
        target = await KaServer.start(self, "--mode=2")
        client = Program.start(
            self, [*script, "connect", target.uri, str(_INTERVAL), str(_COUNT)], os.environ
        )
        await client.waitOutput("connected", timeout=20)
        alive, silent = [await RawClient.connect(self, port) for _client in range(2)]
        for each in (alive, silent):
            await each.open()
        await waitUntil(lambda: alive.pings and silent.pings, "both clients to be pinged")

        _write(offset, seconds)
        await pause(_DEATH + _INTERVAL)
        self.assertIsNone(silent.lostAt, "the step killed a client that answers")
        self.assertNotIn("KeepAliveTimeout", client.output)

        silent.answering = False
        target.program.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        assert silent.wroteAt is not None
        self.assertApproximates(await silent.waitLost() - silent.wroteAt, _DEATH, 0.3)
        match = await client.waitOutput(r"at (\S+): KeepAliveTimeout")
        # The last pong may be an interval old or a little more.
        self.assertApproximates(float(match[1]) - stopped, _DEATH - _INTERVAL / 2, _INTERVAL)
        self.assertIsNone(alive.lostAt)
        target.program.signal(signal.SIGCONT)

    async def test_steps(self) -> None:
        """
        When the wall clock is set forward or back by an hour, connections that answer stay open,
        pings keep their pace, and clients that stop answering or never open are disconnected in the
        usual time.  Nor are programs affected that use only the library.
        """
        await together(
            *(
                check(seconds)
                for check in (self._checkStep, self._checkLibrary)
                for seconds in (_HOUR, -_HOUR)
            )
        )


def _write(path: str, seconds: int) -> None:
    """
    Set the server's wall clock C{seconds} fast, or slow if negative.
    """
    # Without O_TRUNC, since the server has mapped the file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, steppedclock.pack(seconds))
    os.close(descriptor)


def _fast(log: str, text: str) -> float:
    """
    @return: how many seconds the server's wall clock was fast when it logged C{text}.
    """
    (line,) = [line for line in log.splitlines() if text in line]
    stamp = datetime.strptime(line.split(" ", 1)[0], "%Y-%m-%dT%H:%M:%S%z")
    return stamp.timestamp() - time.time()
