"""
Tests for L{kaproto.registry.link}.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from OpenSSL.SSL import Error as SSLError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from kaproto.registry.link import MissingExtra, RedisError, RedisLink, connectLink, requireExtra
from tests.support_registry import RegistryTestCase


class LinkTests(RegistryTestCase):
    """
    Tests for one connection to Redis.
    """

    def connect(self) -> RedisLink:
        """
        @return: a connection that has logged in.
        """
        link = self.result(connectLink(self.redis, self.factory))
        self.addCleanup(self.turns)
        self.addCleanup(link.abort, "the test is over")
        return link

    def test_missing(self) -> None:
        """
        The error for a missing txredisapi says what to install.
        """
        with patch.dict(sys.modules, {"txredisapi": None}):
            error = self.assertRaises(MissingExtra, requireExtra)
        self.assertIn("pip install 'kaproto[redis]'", str(error))

    def test_commands(self) -> None:
        """
        A command returns its reply or raises the error.
        """
        link = self.connect()
        self.assertEqual(self.result(link.command("PING")), "PONG")
        self.assertRaisesRegex(RedisError, "unknown", self.result, link.command("NONSENSE"))

    def test_user(self) -> None:
        """
        The user and the database are taken from the location.
        """
        self.redis.password = self.password.text = "secret"
        self.factory._arguments = (
            type(self.LOCATION)("x", user="ann", database=3),
            *self.factory._arguments[1:],
        )
        self.connect()
        self.assertEqual(self.redis.commands, [["AUTH", "ann", "secret"], ["SELECT", "3"]])

    def test_watched(self) -> None:
        """
        An idle connection is pinged, even when it is subscribed.  It is closed if Redis does not
        answer.
        """
        link = self.connect()
        self.result(link.command("SUBSCRIBE", "x"))
        ended = link.whenEnded()
        self.wait(20)
        self.assertNoResult(ended)
        self.redis.hangs = True
        waiting = link.command("SUBSCRIBE", "y")
        self.wait(7)
        self.assertIn("does not answer", self.successResultOf(ended))
        self.assertTrue(link.isEnded)
        self.assertRaisesRegex(RedisError, "does not answer", self.result, waiting)

    def test_messages(self) -> None:
        """
        Published messages are given to C{message}.
        """
        link = self.connect()
        messages: list[object] = []
        link.message = messages.append
        self.result(link.command("SUBSCRIBE", "x"))
        self.redis.publish("x", "somebody does")
        self.turns()
        self.assertEqual(messages, ["somebody does"])

    def test_ends(self) -> None:
        """
        The reason for the end of a connection is readable.
        """
        for reason, words in (
            (ConnectionDone(), "Redis has ended the connection"),
            (SSLError([("x", "", "certificate verify failed")]), "TLS failed: certificate verify"),
            (ConnectionLost("cable"), "cable"),
        ):
            link = self.result(connectLink(self.redis, self.factory))
            ended = link.whenEnded()
            link.connectionLost(Failure(reason))
            self.assertIn(words, self.successResultOf(ended))
            self.assertIn(words, self.successResultOf(link.whenEnded()))

    def test_somethingElse(self) -> None:
        """
        A server that is not Redis is disconnected.
        """
        link = self.connect()
        ended = link.whenEnded()
        self.redis.transports[0].sendRaw(b"\xff\xff\r\n")
        self.turns()
        link.abort("for another reason")
        self.turns()
        self.assertIn("not Redis", self.successResultOf(ended))
