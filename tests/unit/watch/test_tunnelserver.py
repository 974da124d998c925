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
    A client that knows no tunnel.
    """

    def test_served(self) -> None:
        """
        In mode 1 it is served at its first byte, unwatched, and the log says that mode 2 would
        refuse it.
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
        A client whose first bytes are like those of a tunnel's is recognized where they differ.
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
        Where the server speaks first, it is heard after a while; a client that has said too little
        to tell is served then, too.
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
        With no time to wait, the server's application is held back until the client speaks.
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
        Held back are also a producer and the end of the connection.
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
        Held back is the end of the stream, too, and it comes after what was written.
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
        An application that pauses its transport at once, as a web server does while its producer
        is paused and a port forwarder until it has connected, does not keep its client from being
        known.  It gets nothing before it resumes.
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
        Twisted's web server, which registers a producer that pauses its transport, answers clients
        of a tunnel and plain ones.
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
        A pull producer is asked once the client is known; one that has gone is not.
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
        In mode 2 it is closed at its first byte, and the application sees nothing.
        """
        pair = self.pair(plain=True)
        self.client.transport.write(b"GET")
        pair.flush()
        self.assertEqual((self.server.connections, self.client.heard), (0, b""))
        self.assertEqual(len(self.client.lost), 1)
        self.assertIn("by policy mandatory", self.logged())

    def test_refusedLater(self) -> None:
        """
        A policy may refuse a silent client when it turns out to be plain; what was held back is not
        sent then.
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
        One that says nothing is closed after ten seconds.
        """
        pair = self.pair(plain=True)
        pair.advance(9.9)
        self.assertEqual(self.client.lost, [])
        pair.advance(0.2)
        self.assertEqual((len(self.client.lost), self.client.heard), (1, b""))

    def test_halfClose(self) -> None:
        """
        Its half-closed connection is the transport's own.
        """
        pair = self.pair(Optional(TERMS), plain=True)
        self.client.transport.write(b"x")
        pair.flush()
        closed = []
        pair.serverTransport.loseWriteConnection = lambda: closed.append(True)
        self.server.transport.loseWriteConnection()
        self.assertEqual(closed, [True])
