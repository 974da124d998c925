"""
Tests for L{kaproto.app.unixsockets}.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IListeningPort,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from kaproto.app.unixsockets import MODE, UNIXSocketReactor, listeningSocket


class Silent(Protocol):
    """
    Says nothing.
    """


class Ignorant(Protocol):
    """
    Knows nothing of file descriptors.

    @ivar received: fires with the first bytes.
    """

    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """
        Take the bytes, and close.
        """
        self.received.callback(data)
        assert self.transport is not None
        self.transport.loseConnection()


class UNIXSocketTestCase(TestCase):
    """
    A test with a place for a socket.
    """

    def setUp(self) -> None:
        """
        Make the place.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = Path(os.path.relpath(self.folder / "s"))
        self.factory = Factory.forProtocol(Silent)
        self.reactor = UNIXSocketReactor(reactor)

    def mode(self) -> int:
        """
        @return: who may do what with the socket.
        """
        return stat.S_IMODE(self.path.stat().st_mode)

    async def listen(self, **keywords: int) -> IListeningPort:
        """
        Listen until the test is over.
        """
        endpoint = UNIXServerEndpoint(self.reactor, str(self.path), **keywords)
        port: IListeningPort = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def refused(self) -> CannotListenError:
        """
        @return: why one cannot listen.
        """
        try:
            await self.listen()
        except CannotListenError as problem:
            return problem
        raise AssertionError("it listens")

    def listener(self, backlog: int = 1) -> socket.socket:
        """
        @return: a UNIX socket that somebody else listens on.
        """
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(str(self.path))
        other.listen(backlog)
        return other

    def accepts(self) -> bool:
        """
        @return: whether connections are accepted.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0


class OwnSocketTests(UNIXSocketTestCase):
    """
    A socket that the process makes.
    """

    async def test_mode(self) -> None:
        """
        It has the mode that was asked for, by default that of owner and group, and is gone when
        nobody listens any more.
        """
        for keywords, mode in (({"mode": 0o600}, 0o600), ({"mode": MODE}, 0o660)):
            port = await self.listen(**keywords)
            self.assertEqual(self.mode(), mode)
            self.assertTrue(self.accepts())
            await maybeDeferred(port.stopListening)
            self.assertFalse(self.path.exists())

    def test_group(self) -> None:
        """
        It belongs to the group that was asked for before anybody can connect.
        """
        done: list[object] = []

        class Recorder(socket.socket):
            def listen(self, backlog: int = 0, /) -> None:
                done.append("listen")
                super().listen(backlog)

        self.patch(socket, "socket", Recorder)
        self.patch(os, "chown", lambda *what: done.append(what[1:]))
        with listeningSocket(self.path, 5, 0o640, 77):
            self.assertEqual(done, [(-1, 77), "listen"])
            self.assertEqual(self.mode(), 0o640)

    async def test_groupFails(self) -> None:
        """
        When it cannot belong to that group, it is removed again.
        """

        def fail(*what: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "chown", fail)
        self.reactor = UNIXSocketReactor(reactor, 77)
        problem = await self.refused()
        self.assertEqual(problem.socketError.errno, errno.EPERM)
        self.assertFalse(self.path.exists())

    async def test_replaced(self) -> None:
        """
        A socket that another server has put in its place is left there when it stops.
        """
        port = await self.listen()
        self.path.unlink()
        other = self.listener()
        await maybeDeferred(port.stopListening)
        self.assertTrue(self.accepts())
        other.close()

    async def test_removed(self) -> None:
        """
        A socket that somebody has removed is not missed.
        """
        port = await self.listen()
        self.path.unlink()
        await maybeDeferred(port.stopListening)
        self.assertFalse(self.path.exists())

    async def test_notAllowed(self) -> None:
        """
        A process that may not remove it any more stops all the same.
        """
        port = await self.listen()

        def fail(path: Path) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(Path, "unlink", fail)
        await maybeDeferred(port.stopListening)

    def test_noPath(self) -> None:
        """
        There is no socket without a file.
        """
        error = self.assertRaises(OSError, listeningSocket, Path("\0kaproto"), 1, MODE)
        self.assertEqual(error.errno, errno.EINVAL)

    async def test_descriptors(self) -> None:
        """
        A protocol that knows nothing of file descriptors gets the bytes that came with some; they
        are closed, without a line in the log for each.
        """
        ignorant = Ignorant()
        self.factory = Factory.forProtocol(lambda: ignorant)  # type: ignore[arg-type,return-value]
        await self.listen()
        reading, writing = os.pipe()
        with capturedLogs() as log, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            socket.send_fds(client, [b"x"], [reading])
            os.close(reading)
            self.assertEqual(await ignorant.received, b"x")
        self.assertRaises(BrokenPipeError, os.write, writing, b"nobody reads")
        os.close(writing)
        self.assertEqual([each for each in log if "descriptor" in formatEvent(each)], [])

    async def test_receiver(self) -> None:
        """
        A protocol that knows of file descriptors gets them.
        """
        received: Deferred[int] = Deferred()

        class Receiver(Silent):
            def fileDescriptorReceived(self, descriptor: int) -> None:
                received.callback(descriptor)

        from zope.interface import classImplements

        classImplements(Receiver, IFileDescriptorReceiver)
        self.factory = Factory.forProtocol(Receiver)
        await self.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            socket.send_fds(client, [b"x"], [0])
            os.close(await received)


class AbandonedTests(UNIXSocketTestCase):
    """
    A socket where somebody else has listened.
    """

    async def test_abandoned(self) -> None:
        """
        The socket of a server that was killed makes room, and the log says so.
        """
        self.listener().close()
        self.assertFalse(self.accepts())
        with capturedLogs() as log:
            await self.listen()
        self.assertTrue(self.accepts())
        (line,) = [each for each in log if "removed" in str(each.get("log_format"))]
        self.assertEqual(line["path"], str(self.path))

    async def test_locked(self) -> None:
        """
        Anybody who can read its folder can lock it, which keeps nobody from listening.
        """
        self.listener().close()
        handle = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX)
        await self.listen()
        self.assertTrue(self.accepts())

    async def test_inUse(self) -> None:
        """
        Somebody who listens goes on listening.
        """
        self.listener(10)
        problem = await self.refused()
        self.assertEqual(problem.socketError.errno, errno.EADDRINUSE)
        self.assertTrue(self.accepts())

    async def test_busy(self) -> None:
        """
        So does somebody who has no room for another connection at present.
        """
        self.listener(0)
        waiting = []
        while True:
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.setblocking(False)
            if one.connect_ex(str(self.path)):
                break
            waiting.append(one)
        self.assertNotEqual(waiting, [])
        await self.refused()
        self.assertTrue(self.path.is_socket())

    async def test_noSocket(self) -> None:
        """
        A file that is no socket stays what it is, and so does a link to a socket.
        """
        self.path.write_text("precious")
        await self.refused()
        self.assertEqual(self.path.read_text(), "precious")
        self.path.unlink()
        self.path.symlink_to("elsewhere")
        await self.refused()
        self.assertTrue(self.path.is_symlink())

    async def test_otherProblems(self) -> None:
        """
        Nothing is removed when the problem is another one.
        """
        self.path = self.path / "nothing" / "like" / "this"
        self.assertEqual((await self.refused()).socketError.errno, errno.ENOENT)

    def test_vanished(self) -> None:
        """
        A socket that goes away just then was abandoned.
        """
        abandoned = self.listener()
        abandoned.close()
        lstat = Path.lstat

        def vanish(path: Path) -> os.stat_result:
            self.patch(Path, "lstat", lstat)
            path.unlink()
            return path.lstat()

        self.patch(Path, "lstat", vanish)
        with listeningSocket(self.path, 1, MODE):
            self.assertTrue(self.path.is_socket())

    def test_takenForAbandoned(self) -> None:
        """
        A server whose socket another one has replaced, before it listened, says so.
        """

        class Late(socket.socket):
            def listen(late, backlog: int = 0, /) -> None:
                self.path.unlink()
                self.path.write_text("the other one's")
                super().listen(backlog)

        self.patch(socket, "socket", Late)
        error = self.assertRaises(OSError, listeningSocket, self.path, 1, MODE)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        self.assertTrue(self.path.exists())


class AdoptedTests(UNIXSocketTestCase):
    """
    A socket that somebody else has made, as systemd does.
    """

    async def adopt(self, listening: socket.socket) -> IListeningPort:
        """
        Listen on it.
        """
        number = os.dup(listening.fileno())
        endpoint = AdoptedStreamServerEndpoint(self.reactor, number, listening.family)
        port: IListeningPort = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def test_leftAlone(self) -> None:
        """
        Its mode and its owner stay; when this process stops listening, the other one still does.
        """
        listening = self.listener(10)
        self.path.chmod(0o640)
        before = self.path.stat()
        port = await self.adopt(listening)
        self.assertEqual(self.path.stat(), before)
        client = UNIXClientEndpoint(reactor, str(self.path))
        connection = await client.connect(Factory.forProtocol(Silent))
        assert connection.transport is not None
        connection.transport.loseConnection()
        await maybeDeferred(port.stopListening)
        self.assertEqual(self.path.stat(), before)
        self.assertTrue(self.accepts())
        listening.setblocking(False)
        listening.accept()[0].close()

    async def test_abstract(self) -> None:
        """
        A socket without a file can be adopted too.
        """
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(f"\0kaproto-test-{os.getpid()}")
        listening.listen()
        port = await self.adopt(listening)
        self.assertEqual(port.getHost().name[:9], b"\0kaproto-")  # type: ignore[attr-defined]

    async def test_tcp(self) -> None:
        """
        TCP sockets are adopted as by any reactor.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port = await self.adopt(listening)
        self.assertEqual(port.getHost().port, listening.getsockname()[1])  # type: ignore[attr-defined]


class ReactorTests(TestCase):
    """
    Everything else is done by the reactor.
    """

    def test_delegates(self) -> None:
        """
        It provides what the reactor provides, and does it by the reactor.
        """
        memory = MemoryReactor()
        wrapped = UNIXSocketReactor(memory)
        self.assertTrue(IReactorUNIX.providedBy(wrapped))
        self.assertFalse(IReactorTime.providedBy(wrapped))
        cast(MemoryReactor, wrapped).listenTCP(1, Factory())
        self.assertEqual(len(memory.tcpServers), 1)
