"""
A real browser, kept open on a page for as long as a test needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.interop.support import (
    CHROMIUM,
    InteropTestCase,
    privateEnvironment,
    reactor,
    waitUntil,
)

__all__ = ["Browser"]

_TO_BROWSER, _FROM_BROWSER = 3, 4


class Browser(ProcessProtocol):
    """
    A headless Chromium with one page, controlled by DevTools messages over a pair of pipes.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self._numbers = count(1)
        self._waiting: dict[int, Deferred[dict[str, Any]]] = {}
        self._received = b""
        self._session: str | None = None
        self._ended = False

    @classmethod
    async def start(cls, case: InteropTestCase, width: int = 1280, height: int = 800) -> Self:
        """
        Start the browser with an empty page, and end it when the test ends.

        @param width: the width of the page in pixels.
        """
        browser = cls()
        directory = case.privateDirectory()
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
            "--remote-debugging-pipe",
        ]
        process = reactor.spawnProcess(
            browser,
            CHROMIUM,
            command,
            env=privateEnvironment(directory),
            path=directory,
            childFDs={0: "w", 1: "r", 2: "r", _TO_BROWSER: "w", _FROM_BROWSER: "r"},
        )

        async def kill() -> None:
            if not browser._ended:
                process.signalProcess("KILL")
            await waitUntil(lambda: browser._ended, "the browser has ended")

        case.addCleanup(kill)
        page = await browser.call("Target.createTarget", url="about:blank")
        attached = await browser.call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )
        browser._session = attached["sessionId"]
        await browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        return browser

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        """
        Fire the L{Deferred}s of answered calls.  Ignore what the browser prints.
        """
        if descriptor != _FROM_BROWSER:
            return
        *messages, self._received = (self._received + data).split(b"\0")
        for each in messages:
            message = json.loads(each)
            waiting = self._waiting.pop(message.get("id"), None)
            if waiting is None:
                continue
            if "error" in message:
                waiting.errback(AssertionError(message["error"]["message"]))
            else:
                waiting.callback(message["result"])

    def processEnded(self, reason: Failure) -> None:
        """
        Fail the calls that were not answered.
        """
        self._ended = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.errback(AssertionError("the browser has ended"))

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """
        Call a DevTools method.

        @return: its result.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        result: Deferred[dict[str, Any]] = Deferred()
        self._waiting[number] = result.addTimeout(30, reactor)
        self.transport.writeToChild(_TO_BROWSER, json.dumps(message).encode() + b"\0")
        return await result

    async def evaluate(self, expression: str) -> Any:
        """
        @return: the value of a JavaScript expression on the page.
        """
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def waitFor(self, expression: str, accept: Callable[[Any], bool] = bool) -> Any:
        """
        Evaluate an expression until its value is accepted, for about ten seconds.

        @return: the value.
        """
        for _ in range(200):
            value = await self.evaluate(expression)
            if accept(value):
                return value
            await self.call(
                "Runtime.evaluate",
                expression="new Promise(done => setTimeout(done, 50))",
                awaitPromise=True,
            )
        text = await self.evaluate("document.documentElement.outerHTML")
        raise AssertionError(f"{expression} is {value!r} in {text}")

    async def show(self, url: str) -> None:
        """
        Load a page, and wait until it is complete.
        """
        await self.call("Page.navigate", url=url)
        await self.waitFor(
            f"document.URL == {json.dumps(url)} && document.readyState == 'complete'"
        )
