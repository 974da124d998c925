"""
Tests for programs that use libvirt's Python bindings, with and without an event loop.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.interop.forwarder import Forwarder
from tests.interop.programs import startPythonLibvirt
from tests.interop.servers import KaServer
from tests.interop.shared import SharedServer
from tests.interop.support import InteropTestCase, together

_WITH_EVENT_LOOP = """
libvirt.virEventRegisterDefaultImpl()

def turn():
    while True:
        libvirt.virEventRunDefaultImpl()

threading.Thread(target=turn, daemon=True).start()
closed = []
connection = libvirt.open(sys.argv[1])
connection.registerCloseCallback(lambda connection, reason, data: closed.append(reason), None)
seen = {
    "hostname": connection.getHostname(),
    "setKeepAlive": connection.setKeepAlive(1, 2),
}
time.sleep(float(sys.argv[2]))
seen["alive"] = connection.isAlive()
seen["hostname later"] = connection.getHostname()
connection.unregisterCloseCallback()
seen["left open"] = connection.close()
seen["closed"] = closed
print(json.dumps(seen))
"""

_WITHOUT_EVENT_LOOP = """
libvirt.registerErrorHandler(lambda context, error: None, None)
try:
    connection = libvirt.open(sys.argv[1])
except libvirt.libvirtError as error:
    print(json.dumps({
        "code": error.get_error_code(),
        "domain": error.get_error_domain(),
        "level": error.get_error_level(),
        "message": error.get_error_message(),
    }))
else:
    hostname = connection.getHostname()
    time.sleep(float(sys.argv[2]))
    print(json.dumps({
        "hostname": hostname,
        "hostname later": connection.getHostname(),
        "left open": connection.close(),
    }))
"""


class PythonLibvirtTests(InteropTestCase):
    """
    Tests for scripts run by the system's Python.
    """

    tools = ("python3-libvirt",)

    async def _see(self, script: str, uri: str, seconds: float) -> dict[str, Any]:
        """
        @param seconds: how long the script is idle while connected.
        @return: the object the script printed.
        """
        result = await startPythonLibvirt(self, script, uri, str(seconds)).finish(20)
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        seen: dict[str, Any] = json.loads(result.output)
        return seen

    async def _withEventLoop(self, mode: int) -> None:
        server = await KaServer.start(self, f"--mode={mode}", "--interval=0.3", "--count=2")
        forwarder = Forwarder(self, server.port)
        seen = await self._see(_WITH_EVENT_LOOP, forwarder.uri, 1.3)
        self.assertEqual(
            seen,
            {
                "hostname": socket.gethostname(),
                "setKeepAlive": 0,
                "alive": 1,
                "hostname later": socket.gethostname(),
                "left open": 0,
                "closed": [],
            },
        )
        (link,) = forwarder.links
        self.assertEqual(bool(link.server.pings), mode != 0)
        self.assertEqual(len(link.client.pongs), len(link.server.pings))

    async def test_withEventLoop(self) -> None:
        """
        In each mode a program with an event loop can open, start keepalive and register a close
        callback, which is not called, and stays connected.  It is pinged in modes 1 and 2 only.
        """
        await together(*(self._withEventLoop(mode) for mode in range(3)))

    async def _withoutEventLoop(self, mode: int) -> None:
        server = await KaServer.start(self, f"--mode={mode}", "--interval=0.2", "--count=1")
        forwarder = Forwarder(self, server.port)
        seen = await self._see(_WITHOUT_EVENT_LOOP, forwarder.uri, 1)
        self.assertEqual(
            seen,
            {
                "hostname": socket.gethostname(),
                "hostname later": socket.gethostname(),
                "left open": 0,
            },
        )
        (link,) = forwarder.links
        self.assertEqual(link.server.pings, [])

    async def test_withoutEventLoop(self) -> None:
        """
        In modes 0 and 1 a program without an event loop, which would fail if it were pinged, can
        open, is not pinged for five intervals, and works afterwards.
        """
        await together(self._withoutEventLoop(0), self._withoutEventLoop(1))

    async def test_withoutEventLoopMandatory(self) -> None:
        """
        In mode 2 a program without an event loop gets an error at open that tells it to register
        one.
        """
        server = await SharedServer.get("--mode=2")
        seen = await self._see(_WITHOUT_EVENT_LOOP, server.uri, 0)
        self.assertIn("keepalive", seen["message"])
        self.assertIn("virEventRegisterDefaultImpl", seen["message"])
        del seen["message"]
        self.assertEqual(seen, {"code": 9, "domain": 7, "level": 2})
