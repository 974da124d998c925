"""
Tests for L{kaproto.watch.tunnelserver}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from kaproto.interfaces import ADMITTED, Admission, Refused
from kaproto.peer import Peer
from kaproto.policies import Optional, Policy
from kaproto.testing import memoryPair
from kaproto.watch.tunnelclient import tunnelClient
from kaproto.watch.tunnelserver import tunnelServer
from tests.unit.watch.test_tunnel import (
    MESSAGES,
    TERMS,
    Applications,
    HalfCloseable,
    TunnelTestCase,
)


class PlainClientTests(TunnelTestCase):
    """
    Tests for clients without a tunnel.
    """

    def test_served(self) -> None:
        """
        In mode 1 a plain client is served from its first byte, without pings, and the log says that
        mode 2 would refuse it.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        self.client.transport.write(b"GET")
        pair.flush()
        self.server.transport.write(b"200")
        pair.advance(20)
        self.assertEqual((self.server.heard, self.client.heard), (b"GET", b"200"))
        self.assertEqual(self.server.lost, [])
        self.assertIn("mode 2 would refuse", self.logged())

    def test_similar(self) -> None:
        """
        A client whose first bytes match a tunnel's is recognized as plain at the first that
        differs.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        start = MESSAGES.ask(1)[:7]
        self.client.transport.write(start)
        pair.flush()
        self.assertEqual(self.server.heard, b"")
        self.client.transport.write(b"x")
        pair.flush()
        self.assertEqual(self.server.heard, start + b"x")

    def test_silent(self) -> None:
        """
        A client that has sent nothing, or too little to tell, is served as plain after C{wait}
        seconds, so that the server can speak first.
        """
        for said in (b"", MESSAGES.ask(1)[:5]):
            self.setUp()
            self.server.greeting = b"220 ready"
            pair = self.pair(Optional(TERMS), plain=True)
            if said:
                pair.clientTransport.write(said)
            pair.advance(0.9)
            self.assertEqual((self.server.connections, self.client.heard), (1, b""))
            pair.advance(0.2)
            self.assertEqual((self.server.heard, self.client.heard), (said, b"220 ready"))

    def test_clientFirst(self) -> None:
        """
        With C{wait=0} the server's bytes are held back until the client has sent something.
        """
        self.server.greeting = b"hi"
        pair = self.pair(Optional(TERMS), plain=True, wait=0)
        pair.advance(60)
        self.assertEqual(self.client.heard, b"")
        self.client.transport.write(b"x")
        pair.flush()
        self.assertEqual(self.client.heard, b"hi")

    def test_heldBack(self) -> None:
        """
        Until the client is recognized, the application's producer is paused and its close is
        delayed.
        """

        class Producer:
            calls: list[str] = []  # noqa: RUF012

            def pauseProducing(self) -> None:
                self.calls.append("pause")

            def resumeProducing(self) -> None:
                self.calls.append("resume")

        pair = self.pair(Optional(TERMS), plain=True)
        producer = Producer()
        transport = self.server.transport
        transport.registerProducer(producer, True)
        transport.write(b"220 ready")
        transport.loseConnection()
        self.assertEqual((producer.calls, transport.disconnecting), (["pause"], 1))
        pair.advance(1.1)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(self.client.heard, b"220 ready")
        self.assertEqual(len(self.client.lost), 1)

    def test_endHeldBack(self) -> None:
        """
        Until the client is recognized, a half-close is delayed too, and follows the bytes that the
        application has written before it.
        """
        self.server, self.client = HalfCloseable(), HalfCloseable()
        server = tunnelServer(Applications(self.server), Optional(TERMS), clock=self.clock)
        client = tunnelClient(Applications(self.client), TERMS, clock=self.clock)
        pair = memoryPair(server, client, self.clock)
        self.server.transport.write(b"bye")
        self.server.transport.loseWriteConnection()
        pair.flush()
        self.assertEqual((self.client.heard, self.client.ended), (b"bye", 1))
        self.assertEqual((self.server.lost, self.client.lost), ([], []))

    def test_pauses(self) -> None:
        """
        A client is recognized even if the application pauses its transport at once, as a web server
        or a port forwarder does.  The application gets nothing until it resumes.
        """
        for plain in (True, False):
            self.setUp()
            server = tunnelServer(Applications(self.server), Optional(TERMS), clock=self.clock)
            client: Any = Applications(self.client)
            if not plain:
                client = tunnelClient(client, TERMS, clock=self.clock)
            pair = memoryPair(server, client, self.clock)
            transport = self.server.transport
            transport.pauseProducing()
            transport.resumeProducing()
            transport.pauseProducing()
            pair.flush()
            if plain:
                self.client.transport.write(b"hello")
                pair.flush()
            else:
                self.assertEqual(self.client.connections, 1)
                self.client.transport.writeSequence([b"hel", b"lo"])
                pair.flush()
            self.assertEqual(self.server.heard, b"")
            self.assertFalse(pair.serverTransport.reading)
            transport.resumeProducing()
            pair.flush()
            self.assertEqual(self.server.heard, b"hello")
            transport.pauseProducing()
            self.assertFalse(pair.serverTransport.reading)

    def test_webServer(self) -> None:
        """
        Twisted's web server, which pauses its transport, serves clients with and without a tunnel.
        """
        request = b"GET / HTTP/1.0\r\n\r\n"
        for plain in (True, False):
            self.setUp()
            root = Resource()
            root.putChild(b"", Data(b"hello", "text/plain"))
            site = Site(root, reactor=self.clock)
            site.timeOut = None
            server = tunnelServer(site, Optional(TERMS), clock=self.clock)
            client: Any = Applications(self.client)
            if not plain:
                client = tunnelClient(client, TERMS, clock=self.clock)
            pair = memoryPair(server, client, self.clock)
            pair.flush()
            self.client.transport.write(request)
            pair.flush()
            self.assertTrue(self.client.heard.endswith(b"\r\n\r\nhello"), self.client.heard)

    def test_producers(self) -> None:
        """
        A pull producer is registered with the transport once the client is recognized, unless it
        has been unregistered.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        transport = self.server.transport
        transport.registerProducer(object(), False)
        transport.unregisterProducer()
        producer: Any = object()
        transport.registerProducer(producer, False)
        pair.advance(1.1)
        self.assertIs(pair.serverTransport._producer, producer)
        transport.unregisterProducer()
        transport.registerProducer(producer, False)
        self.assertIs(pair.serverTransport._producer, producer)

    def test_refused(self) -> None:
        """
        In mode 2 a plain client is closed at its first byte, and never reaches the application.
        """
        pair = self.pair(plain=True)
        self.client.transport.write(b"GET")
        pair.flush()
        self.assertEqual((self.server.connections, self.client.heard), (0, b""))
        self.assertEqual(len(self.client.lost), 1)
        self.assertIn("by policy mandatory", self.logged())

    def test_refusedLater(self) -> None:
        """
        A policy may refuse a silent client when it is recognized as plain; the bytes held back are
        then not sent.
        """

        class Moody(Policy):
            name = "moody"
            answers: Iterator[Admission | Refused] = iter([ADMITTED, Refused("no")])

            def admit(self, peer: Peer) -> Admission | Refused:
                return next(self.answers)

        self.server.greeting = b"220 ready"
        pair = self.pair(Moody(TERMS), plain=True)
        pair.advance(1.1)
        self.assertEqual((self.client.heard, len(self.client.lost)), (b"", 1))

    def test_silentRefused(self) -> None:
        """
        In mode 2 a silent client is closed after ten seconds.
        """
        pair = self.pair(plain=True)
        pair.advance(9.9)
        self.assertEqual(self.client.lost, [])
        pair.advance(0.2)
        self.assertEqual((len(self.client.lost), self.client.heard), (1, b""))

    def test_halfClose(self) -> None:
        """
        For a plain client C{loseWriteConnection} is the transport's own.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        self.client.transport.write(b"x")
        pair.flush()
        closed = []
        pair.serverTransport.loseWriteConnection = lambda: closed.append(True)
        self.server.transport.loseWriteConnection()
        self.assertEqual(closed, [True])
