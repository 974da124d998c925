"""
Tests that kaproto works on systems that lack features of Linux.

The system is simulated: a fresh interpreter deletes the features' names before it imports kaproto.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import kaproto
from tests.support_sockets import shortFolder

_FORGET = """
import os, select, socket, sys

from twisted.internet import pollreactor
pollreactor.install()
import OpenSSL.SSL, cryptography, twisted.protocols.tls, twisted.internet.endpoints, twisted.logger

for module, names in (
    (socket, ("SO_PEERCRED", "MSG_DONTWAIT", "TCP_INFO", "TCP_KEEPIDLE", "TCP_KEEPINTVL",
              "TCP_KEEPCNT", "TCP_USER_TIMEOUT")),
    (select, ("epoll", "EPOLLIN", "EPOLLONESHOT", "EPOLLET")),
    (os, ("eventfd", "timerfd_create", "timerfd_settime", "memfd_create")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["resource"] = None
sys.modules["twisted.internet.epollreactor"] = None
sys.platform = "freebsd14"
"""

_IMPORT = """
from importlib import import_module
from pkgutil import walk_packages
import kaproto

for each in walk_packages(kaproto.__path__, "kaproto."):
    if each.name not in ("kaproto.__main__", "kaproto.watch.websocket"):
        import_module(each.name)
"""

_SERVE = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint, TCP4ServerEndpoint, UNIXServerEndpoint
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from kaproto.app.process import OwnProcess, clientsFor
from kaproto.backends.host import EmbeddedHost
from kaproto.client import connect
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.message import Message, packMessage
from kaproto.wire.programs import REMOTE_PROGRAM, Feature, Procedure
from kaproto.wire.xdr import Packer

class Mute(Protocol):
    def connectionMade(self):
        call = Message(REMOTE_PROGRAM, 1, Procedure.CONNECT_SUPPORTS_FEATURE, 0, 0, 0,
                       Packer().int32(Feature.PROGRAM_KEEPALIVE).packed())
        opening = Message(REMOTE_PROGRAM, 1, Procedure.CONNECT_OPEN, 0, 1, 0,
                          Packer().optionalString("test:///default").uint32(0).packed())
        self.transport.write(packMessage(call) + packMessage(opening))

async def main():
    process = OwnProcess(reactor)
    process.prepare()
    assert clientsFor(1) == 0
    factory = KeepAliveServerFactory(Mandatory(KeepAlive(0.2, 4)), EmbeddedHost())
    tcp = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    unix = await UNIXServerEndpoint(reactor, "s").listen(factory)
    uris = [
        f"test+tcp://127.0.0.1:{tcp.getHost().port}/default",
        "test+unix:///default?socket=" + os.path.abspath("s"),
    ]
    connections = [await connect(reactor, uri, keepAlive=KeepAlive(0.2, 4)) for uri in uris]
    before = set(factory.connections)
    await deferLater(reactor, 1)
    # They answered each other's pings meanwhile.
    assert set(factory.connections) == before
    for each in connections:
        assert await each.hostname()
        assert each.latency is not None
    # Whoever answers nothing is dropped.
    await TCP4ClientEndpoint(reactor, "127.0.0.1", tcp.getHost().port).connect(
        Factory.forProtocol(Mute)
    )
    while len(factory.connections) < 3:
        await deferLater(reactor, 0.01)
    (mute,) = set(factory.connections) - before
    print(type(await mute.whenClosed()).__name__)
    for port in (tcp, unix):
        await maybeDeferred(port.stopListening)
    factory.abort()

running = Deferred.fromCoroutine(main())
running.addErrback(lambda failure: failure.printTraceback(sys.stderr)).addBoth(
    lambda _: reactor.callLater(0.1, reactor.stop)
)
reactor.run()
"""


class OldestTests(SynchronousTestCase):
    """
    Tests for the list of oldest dependencies, with which a tox environment runs the tests.
    """

    def test_same(self) -> None:
        """
        The versions are the oldest that C{pyproject.toml} allows.
        """
        folder = Path(kaproto.__file__).parent.parent
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        allowed = project["dependencies"] + project["optional-dependencies"]["test"]
        oldest = (folder / "tests" / "oldest.txt").read_text("utf-8").split()
        names = [re.sub(r"\[.*\]", "", each.replace(">=", "==")) for each in allowed]
        self.assertEqual(sorted(oldest), sorted(names))


class PortabilityTests(SynchronousTestCase):
    """
    Tests for a system without C{SO_PEERCRED}, C{MSG_DONTWAIT}, C{TCP_INFO}, C{epoll}, C{timerfd}
    and C{resource}.
    """

    def run_(self, script: str) -> str:
        """
        Run a script on the simulated system.

        @return: its output.
        """
        process = subprocess.run(
            [sys.executable, "-c", _FORGET + script],
            capture_output=True,
            check=False,
            timeout=60,
            text=True,
            cwd=shortFolder(self),
            env={**os.environ, "PYTHONPATH": str(Path(kaproto.__file__).parent.parent)},
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        return process.stdout

    def test_import(self) -> None:
        """
        Every module can be imported, except those that start a program or need an extra.
        """
        self.assertEqual(self.run_(_IMPORT), "")

    def test_serve(self) -> None:
        """
        Servers and clients communicate over TCP and UNIX sockets, answer pings, and notice a peer
        that does not.
        """
        self.assertEqual(self.run_(_SERVE), "KeepAliveTimeout\n")
