"""
Tests for L{kaproto.app.stalesocket}.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from kaproto.app.stalesocket import listenReplacingStale


@implementer(IStreamServerEndpoint)
class Failing:
    """
    An endpoint that cannot listen because of a socket that is there already.

    @ivar locked: for each time that it was tried, whether the folder was locked.
    """

    def __init__(self, path: bytes) -> None:
        self.locked: list[bool] = []
        self._path = path

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Fail.
        """
        handle = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.locked.append(True)
        else:
            self.locked.append(False)
        finally:
            os.close(handle)
        problem = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return fail(CannotListenError(None, self._path, problem))


class AfreshTests(TestCase):
    """
    Listening where somebody else has.
    """

    def setUp(self) -> None:
        """
        Make a place for a socket.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        self.path = os.path.relpath(os.path.join(directory, "s"))
        self.fullPath = os.path.abspath(self.path).encode()
        self.factory = Factory.forProtocol(object)  # type: ignore[type-var]

    async def listen(self, path: str) -> None:
        """
        Listen on a UNIX socket until the test is over.
        """
        port = await listenReplacingStale(UNIXServerEndpoint(reactor, path), self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))

    def listener(self, backlog: int = 1) -> socket.socket:
        """
        @return: a UNIX socket that somebody else listens on.
        """
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(self.path)
        other.listen(backlog)
        return other

    async def refused(self, path: str) -> CannotListenError:
        """
        @return: why one cannot listen.
        """
        try:
            await listenReplacingStale(UNIXServerEndpoint(reactor, path), self.factory)
        except CannotListenError as problem:
            return problem
        raise AssertionError("it listens")

    def accepts(self) -> bool:
        """
        @return: whether connections are accepted.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    async def test_nothingThere(self) -> None:
        """
        Where nothing is, nothing is removed.
        """
        with capturedLogs() as log:
            await self.listen(self.path)
        self.assertTrue(self.accepts())
        self.assertEqual([each for each in log if "removed" in str(each.get("log_format"))], [])

    async def test_abandoned(self) -> None:
        """
        The socket of one that was killed makes room, and the log says so.
        """
        self.listener().close()
        self.assertFalse(self.accepts())
        with capturedLogs() as log:
            await self.listen(self.path)
        self.assertTrue(self.accepts())
        (line,) = [each for each in log if "removed" in str(each.get("log_format"))]
        self.assertEqual(line["path"], self.path)

    async def test_inUse(self) -> None:
        """
        Somebody who listens goes on listening.
        """
        self.listener(10)
        problem = await self.refused(self.path)
        self.assertEqual(problem.socketError.errno, errno.EADDRINUSE)
        self.assertTrue(self.accepts())

    async def test_busy(self) -> None:
        """
        So does somebody who has no room for one more connection at present.
        """
        self.listener(0)
        waiting = []
        while True:
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.setblocking(False)
            if one.connect_ex(self.path):
                break
            waiting.append(one)
        self.assertNotEqual(waiting, [])
        await self.refused(self.path)
        self.assertIn("s", os.listdir(os.path.dirname(self.fullPath).decode()))

    async def test_noSocket(self) -> None:
        """
        A file that is no socket stays what it is.
        """
        with open(self.path, "w", encoding="ascii") as file:
            file.write("precious")
        await self.refused(self.path)
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    async def test_abstract(self) -> None:
        """
        A name that is no file belongs to whoever listens there.
        """
        name = f"\0kaproto-{os.getpid()}"
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(name)
        await self.refused(name)

    async def test_otherProblems(self) -> None:
        """
        Nothing is tried again when the problem is another one.
        """
        problem = await self.refused(self.path + "/nothing/like/this")
        self.assertEqual(problem.socketError.errno, errno.ENOENT)
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        endpoint = TCP4ServerEndpoint(reactor, taken.getsockname()[1], interface="127.0.0.1")
        with self.assertRaises(CannotListenError):
            await listenReplacingStale(endpoint, self.factory)

    async def test_vanished(self) -> None:
        """
        When it goes away just then, the problem is told as it was.
        """
        endpoint = Failing(self.fullPath)
        with self.assertRaises(CannotListenError):
            await listenReplacingStale(endpoint, self.factory)
        self.assertEqual(endpoint.locked, [False])

    async def test_alone(self) -> None:
        """
        While one looks, removes and listens, others that do the same wait; afterwards they do
        not.
        """
        self.listener().close()
        endpoint = Failing(self.fullPath)
        for _ in range(2):
            with self.assertRaises(CannotListenError):
                await listenReplacingStale(endpoint, self.factory)
        self.assertEqual(endpoint.locked, [False, True, False])
