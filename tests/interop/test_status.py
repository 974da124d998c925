"""
C{twistd kaserver --admin --status} as a process: the page in a real browser, metrics, probes and
draining, with real clients that come, die and are refused.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zlib
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.rpc.protocol import connectionOf
from tests.interop.programs import Program, Result, startVirsh
from tests.interop.servers import KaServer
from tests.interop.support import (
    CHROMIUM,
    InteropTestCase,
    privateEnvironment,
    reactor,
    waitUntil,
)

EVIL = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
PORT = re.compile(r"listening on tcp 127\.0\.0\.1:(\d+) \(status page\)")


@implementer(IAgentEndpointFactory)
class _Place:
    """
    Connects to the status page, whatever the URL says.
    """

    def __init__(self, endpoint: object) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> object:
        """
        @return: where the page is.
        """
        return self._endpoint


class StatusTestCase(InteropTestCase):
    """
    A test of a server as a process.
    """

    tools: tuple[str, ...] = ("virsh",)
    mode = "2"

    async def start(self, *arguments: str) -> None:
        """
        Start it.
        """
        self.directory = self.privateDirectory()
        self.admin = os.path.join(self.directory, "admin")
        self.server = await KaServer.start(
            self,
            "--interval=1",
            "--count=2",
            f"--admin={self.admin}",
            "--status=tcp:0:interface=127.0.0.1",
            *arguments,
        )
        match = await self.server.program.waitOutput(PORT.pattern)
        self.port = int(match[1])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        self.agent = Agent.usingEndpointFactory(reactor, _Place(endpoint))

    async def get(self, path: str) -> tuple[int, str]:
        """
        @return: the status code and the text.
        """
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        response: IResponse = await self.agent.request(b"GET", url)
        body: bytes = await readBody(response)
        return response.code, body.decode()

    async def metrics(self) -> dict[str, float]:
        """
        @return: each metric, by its name and labels.
        """
        _code, text = await self.get("/metrics")
        return {
            sample.name
            + "".join(
                f" {key}={value}" for key, value in sample.labels.items() if key != "listener"
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def kaproto(self, *arguments: str) -> Result:
        """
        Run C{kaproto}.
        """
        command = [sys.executable, "-m", "kaproto", f"--socket={self.admin}", *arguments]
        return await Program.start(self, command, os.environ).finish()

    async def client(
        self, name: str = "test:///default", *, ask: bool = True
    ) -> KeepAliveClientProtocol:
        """
        Connect a client of ours.
        """
        factory = KeepAliveClientFactory(name, clock=reactor)
        factory.asksForKeepAlive = ask
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.server.port)
        connection = await endpoint.connect(factory)
        assert isinstance(connection, KeepAliveClientProtocol)
        self.addCleanup(connectionOf(connection, ClientConnection).transport.abortConnection)
        return await connection.whenOpen()


class LifeTests(StatusTestCase):
    """
    From start to end.
    """

    async def test_everything(self) -> None:
        """
        Real clients come, die and are refused, and metrics, probes and C{kaproto} say so; the
        server drains, and while it does, it lives and is not ready.
        """
        await self.start("--mode=2")
        self.assertEqual(await self.get("/livez"), (200, "ok\n"))
        self.assertEqual(await self.get("/readyz"), (200, "ok\n"))
        virsh = startVirsh(self, "-c", self.server.uri)
        await virsh.ask("hostname", r"\S+")
        dying = await self.client()
        connectionOf(dying, ClientConnection).transport.pauseProducing()
        refused = await self.assertFailure(
            Deferred.fromCoroutine(self.client(ask=False)), Exception
        )
        self.assertIn("keepalive", str(refused))
        await waitUntil(lambda: "is dead" in self.server.log, "it is dead", 15)
        await self.get("/metrics")
        found = await self.metrics()
        for name, value in {
            "kaproto_connections state=open": 1,
            "kaproto_connections_opened_total": 2,
            "kaproto_opens_refused_total policy=mandatory": 1,
            "kaproto_connections_closed_total reason=keepalive_timeout": 1,
            "kaproto_connections_closed_total reason=refused": 1,
            "kaproto_ready": 1,
        }.items():
            self.assertEqual(found[name], value, name)
        self.assertGreater(found["kaproto_keepalive_pings_sent_total"], 2)
        self.assertGreater(found["kaproto_keepalive_round_trip_seconds_count"], 0)
        status = json.loads((await self.kaproto("status", "--json")).output)[0]
        self.assertEqual((status["policy"], status["clients"]), ("mandatory", 1))
        drained = await self.kaproto("drain", "--within=30")
        self.assertIn("it stops when 1 client has left", drained.output)
        await waitUntil(lambda: "draining" in self.server.log, "it drains")
        self.assertEqual(await self.get("/livez"), (200, "ok\n"))
        self.assertEqual(await self.get("/readyz"), (503, "draining\n"))
        self.assertEqual((await self.kaproto("status")).exitCode, 1)
        virsh.send("quit")
        await waitUntil(lambda: not self.server.program.running, "the server has stopped", 15)

    async def test_away(self) -> None:
        """
        A gateway whose libvirtd is away is not ready, says why, and is ready again when it is back,
        though no client has come meanwhile.
        """
        path = os.path.join(self.privateDirectory(), "upstream")
        listen = f"--listen=unix:{path}.clients"
        await self.start(f"--upstream=unix:{path}", "--insecure", listen)
        self.assertEqual((await self.get("/readyz"))[0], 200)
        factory = KeepAliveClientFactory(clock=reactor)
        endpoint = UNIXClientEndpoint(reactor, f"{path}.clients")
        connection = await endpoint.connect(factory)
        await self.assertFailure(connection.whenOpen(), Exception)
        code, text = await self.get("/readyz")
        self.assertEqual(code, 503)
        self.assertIn("unable to connect to libvirtd", text)
        await KaServer.start(self, f"--listen=unix:{path}")

        async def ready() -> None:
            while (await self.get("/readyz"))[0] != 200:
                pass

        await Deferred.fromCoroutine(ready()).addTimeout(20, reactor)


class BrowserTests(StatusTestCase):
    """
    The page in a real browser.
    """

    tools = ("virsh", "chromium")

    async def browse(self, path: str, *arguments: str) -> str:
        """
        @return: the document, as the browser has it after a few seconds.
        """
        directory = self.privateDirectory()
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={directory}",
            *arguments,
            "--timeout=6000",
            "--dump-dom",
            f"http://127.0.0.1:{self.port}{path}",
        ]
        program = Program.start(self, command, privateEnvironment(directory), directory)
        result = await program.finish(45)
        return result.output

    async def test_hostile(self) -> None:
        """
        A page is kept up to date while clients come and go, and what hostile clients call
        themselves is text on it and nothing else.
        """
        await self.start("--mode=1")
        await self.client("test:///default?x=" + EVIL)
        browsing = Deferred.fromCoroutine(self.browse("/?q=" + quote("default")))
        refused = await self.assertFailure(
            Deferred.fromCoroutine(self.client(EVIL, ask=False)), Exception
        )
        self.assertIn("no connection driver", str(refused))
        await self.client("test:///default", ask=False)
        document = await browsing
        self.assertIn("<title>kaserver", document)
        self.assertNotIn("pwned</title>", document)
        self.assertIn("&lt;img src=x", document)
        self.assertIn('<span id="live" class="badge good">live</span>', document)
        clients = document.partition('<section id="clients">')[2].partition("</section>")[0]
        self.assertEqual(clients.count("<tr"), 3, "it was told of the one that came later")

    async def test_widths(self) -> None:
        """
        Nothing is cut off at the right, on a desktop or on a phone, with a long name on the page.
        """
        await self.start("--mode=1")
        await self.client("test:///default?" + "x" * 150)
        for width, height in ((1280, 700), (390, 900)):
            path = os.path.join(self.directory, f"{width}.png")
            await self.browse(
                "/", f"--window-size={width},{height}", f"--screenshot={path}", "--hide-scrollbars"
            )
            with open(path, "rb") as file:
                rows = pixels(file.read())
            self.assertEqual(len(rows[0]), width)
            margin = {pixel for row in rows for pixel in row[-8:]}
            self.assertEqual(len(margin), 1, f"the margin of a page of {width} pixels has a colour")
            self.assertGreater(len({pixel for row in rows for pixel in row}), 10)


def pixels(png: bytes) -> list[list[bytes]]:
    """
    @param png: a picture of 8 bits per colour.
    @return: its rows of pixels.
    """
    width, height, depth, kind = struct.unpack_from(">IIBB", png, 16)
    size = {2: 3, 6: 4}[kind]
    assert depth == 8, "this is for what Chromium writes"
    data, offset = b"", 8
    while offset < len(png):
        length, name = struct.unpack_from(">I4s", png, offset)
        if name == b"IDAT":
            data += png[offset + 8 : offset + 8 + length]
        offset += 12 + length
    raw = zlib.decompress(data)
    above = bytes(width * size)
    rows = []
    for number in range(height):
        start = number * (width * size + 1)
        above = _unfiltered(raw[start], raw[start + 1 : start + 1 + width * size], above, size)
        rows.append([above[each : each + size] for each in range(0, len(above), size)])
    return rows


def _unfiltered(kind: int, line: bytes, above: bytes, size: int) -> bytes:
    """
    Undo one of PNG's filters: none, sub, up, average, Paeth.
    """
    found = bytearray(line)
    for place, value in enumerate(line):
        left = found[place - size] if place >= size else 0
        up = above[place]
        corner = above[place - size] if place >= size else 0
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda each: abs(guess - each))
        found[place] = (value + (0, left, up, (left + up) // 2, paeth)[kind]) & 0xFF
    return bytes(found)
