"""
Tests for L{kaproto.errors}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto import errors
from kaproto.errors import (
    ConnectionClosed,
    DeadlineMissed,
    KaprotoError,
    KeepAliveTimeout,
    LocalProtocolError,
    PeerFlooded,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
)


class ErrorsTests(SynchronousTestCase):
    """
    Tests for the exception classes and their messages.
    """

    def test_oneRoot(self) -> None:
        """
        All exceptions are subclasses of L{KaprotoError} and are exported.
        """
        classes = {
            name
            for name, value in vars(errors).items()
            if isinstance(value, type) and issubclass(value, Exception)
        }
        self.assertEqual(classes, set(errors.__all__))
        for name in classes:
            self.assertTrue(issubclass(getattr(errors, name), KaprotoError), name)

    def test_faults(self) -> None:
        """
        A protocol error is local or remote, never both; floods and missed deadlines are remote.
        """
        self.assertFalse(issubclass(LocalProtocolError, RemoteProtocolError))
        self.assertFalse(issubclass(RemoteProtocolError, LocalProtocolError))
        for fault in (LocalProtocolError, RemoteProtocolError):
            self.assertTrue(issubclass(fault, ProtocolError))
        for theirs in (PeerFlooded, DeadlineMissed):
            self.assertTrue(issubclass(theirs, RemoteProtocolError))

    def test_printable(self) -> None:
        """
        An error's text is safe for logs and terminals, even where it quotes the peer's bytes.
        """
        quoted = "k\u00f6nnte\nno\udcff\x1b[31m\x00"
        for error in (
            RemoteProtocolError(quoted),
            RemoteError(1, 7, quoted),
            ConnectionClosed(quoted),
        ):
            self.assertIn("k\u00f6nnte\nno\\udcff\\x1b[31m\\x00", str(error))
        self.assertEqual(RemoteError(1, 7, quoted).message, quoted)

    def test_answersAreNoFaults(self) -> None:
        """
        A failed call, a dead peer and a closed connection are not protocol errors.
        """
        for each in (RemoteError, KeepAliveTimeout, ConnectionClosed):
            self.assertFalse(issubclass(each, ProtocolError), each)

    def test_somebodyIsAtFault(self) -> None:
        """
        L{ProtocolError} itself cannot be raised, only its local and remote subclasses.
        """
        error = self.assertRaises(TypeError, ProtocolError, "something")
        self.assertIn("LocalProtocolError or RemoteProtocolError", str(error))
        self.assertEqual(str(LocalProtocolError("ours")), "ours")
        self.assertEqual(str(RemoteProtocolError("theirs")), "theirs")

    def test_keepAliveTimeout(self) -> None:
        """
        The error for a dead peer has libvirt's words and the numbers.
        """
        error = KeepAliveTimeout(1.5, 2, 4.516)
        self.assertEqual(
            str(error),
            "connection closed due to keepalive timeout: nothing heard for 4.52 s and 2 pings "
            "unanswered (interval 1.5 s, count 2)",
        )
        self.assertEqual((error.interval, error.count, error.silence), (1.5, 2, 4.516))

    def test_deadlineMissed(self) -> None:
        """
        The error for a missed deadline says what was expected, and within how many seconds.
        """
        error = DeadlineMissed("it did not open the connection", 10.0)
        self.assertEqual(str(error), "it did not open the connection within 10 s")
        self.assertEqual(error.seconds, 10.0)

    def test_connectionClosed(self) -> None:
        """
        L{ConnectionClosed} has libvirt's number for the reason, if there is one.
        """
        self.assertIsNone(ConnectionClosed("over").reason)
        error = ConnectionClosed("over", 2)
        self.assertEqual((str(error), error.reason), ("over", 2))

    def test_remoteError(self) -> None:
        """
        L{RemoteError} has libvirt's four fields and shows them; its level is an error by default.
        """
        error = RemoteError(9, 7, "operation failed: no", 1)
        self.assertEqual(
            (error.code, error.domain, error.message, error.level),
            (9, 7, "operation failed: no", 1),
        )
        self.assertEqual(str(error), "operation failed: no (code 9, domain 7, level 1)")
        self.assertEqual(RemoteError(9, 7, "no").level, 2)
