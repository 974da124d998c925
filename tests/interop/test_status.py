"""
Tests for C{twistd kaserver --admin --status} as a process: the page in a real browser, metrics,
probes and draining, with real clients that connect, die and are refused.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.client.connection import ClientConnection
from kaproto.rpc.protocol import connectionOf
from tests.interop.browser import Browser
from tests.interop.programs import Program, Result, startVirsh
from tests.interop.servers import KaServer
from tests.interop.support import (
    InteropTestCase,
    pause,
    reactor,
    waitUntil,
)

EVIL = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
PORT = re.compile(r"listening on tcp 127\.0\.0\.1:(\d+) \(status page\)")


@implementer(IAgentEndpointFactory)
class _Place:
    """
    Connects to the status page for any URL.
    """

    def __init__(self, endpoint: object) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> object:
        """
        @return: the endpoint of the status page.
        """
        return self._endpoint


class StatusTestCase(InteropTestCase):
    """
    A test with a server as a process.
    """

    tools: tuple[str, ...] = ("virsh",)
    mode = "2"

    async def start(self, *arguments: str) -> None:
        """
        Start the server.
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
        @return: the status code and body of a page.
        """
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        response: IResponse = await self.agent.request(b"GET", url)
        body: bytes = await readBody(response)
        return response.code, body.decode()

    async def metrics(self) -> dict[str, float]:
        """
        @return: the value of each metric, by its name and labels.
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
        Connect a client with this library.
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
    Tests for a server from start to end.
    """

    async def test_everything(self) -> None:
        """
        Metrics, probes and C{kaproto} show that clients connect, die and are refused.  While the
        server drains, it is live but not ready.
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
        A gateway whose libvirtd is not running is not ready, with the reason, and becomes ready
        when it runs, even without clients.  When libvirtd ends, the gateway is not ready at once.
        """
        path = os.path.join(self.privateDirectory(), "upstream")
        listen = f"--listen=unix:{path}.clients"
        await self.start(f"--upstream=unix:{path}", "--insecure", listen)
        code, text = await self.get("/readyz")
        self.assertEqual(code, 503)
        self.assertIn("unable to connect to libvirtd: ", text)
        self.assertEqual(await self.get("/livez"), (200, "ok\n"))
        upstream = await KaServer.start(self, f"--listen=unix:{path}")
        await self.becomes(200, "ok")
        virsh = startVirsh(self, "-c", f"test+unix:///default?socket={path}.clients")
        await virsh.ask("hostname", r"\S+")
        upstream.program.signal(signal.SIGTERM)
        await virsh.waitOutput("Disconnected from")
        await self.becomes(503, "unable to connect to libvirtd: ")

    async def becomes(self, code: int, text: str) -> None:
        """
        Wait until C{/readyz} has that code and text.
        """

        async def found() -> None:
            while True:
                got, words = await self.get("/readyz")
                if got == code and text in words:
                    return
                await pause(0.05)

        await Deferred.fromCoroutine(found()).addTimeout(20, reactor)


class BrowserTests(StatusTestCase):
    """
    Tests for the page in a real browser.
    """

    tools = ("virsh", "chromium")

    async def show(self, query: str = "", width: int = 1280) -> Browser:
        """
        @return: a browser that shows the page and receives updates.
        """
        browser = await Browser.start(self, width)
        await browser.show(f"http://127.0.0.1:{self.port}/{query}")
        await browser.waitFor(
            "document.getElementById('live').className", lambda found: found == "badge good"
        )
        return browser

    async def test_hostile(self) -> None:
        """
        The page is updated while clients connect and leave, and shows the names of hostile clients
        as text.
        """
        await self.start("--mode=1")
        await self.client("test:///default?x=" + EVIL)
        browser = await self.show("?q=" + quote("default"))
        rows = "document.querySelectorAll('#clients tbody tr').length"
        self.assertEqual(await browser.evaluate(rows), 1)
        refused = await self.assertFailure(
            Deferred.fromCoroutine(self.client(EVIL, ask=False)), Exception
        )
        self.assertIn("no connection driver", str(refused))
        leaving = await self.client("test:///default?" + EVIL, ask=False)
        await browser.waitFor(rows, lambda found: found == 2)
        await leaving.close()
        await browser.waitFor(rows, lambda found: found == 1)
        self.assertIn(EVIL, await browser.evaluate("document.body.innerText"))
        self.assertEqual(
            await browser.evaluate("document.querySelectorAll('main img, main script').length"), 0
        )
        self.assertRegex(await browser.evaluate("document.title"), "^kaserver")

    async def test_stopped(self) -> None:
        """
        When the server has ended, the page says that it has no connection.
        """
        await self.start("--mode=1")
        browser = await self.show()
        await self.server.program.kill()
        found = await browser.waitFor(
            "document.getElementById('live').textContent", lambda found: found != "live"
        )
        self.assertEqual(found, "no connection")

    async def test_widths(self) -> None:
        """
        Nothing is cut off at the right, on a desktop or a phone, with a long name on the page.
        """
        await self.start("--mode=1")
        await self.client("test:///default?" + "x" * 150)
        for width in (1280, 390):
            browser = await self.show(width=width)
            self.assertEqual(await browser.evaluate("window.innerWidth"), width)
            right = (
                "Math.max(...Array.from(document.querySelectorAll('body *'), "
                "each => each.getBoundingClientRect().right))"
            )
            self.assertLessEqual(await browser.evaluate(right), width)
