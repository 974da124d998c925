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
    A protocol that sends nothing.
    """


class Ignorant(Protocol):
    """
    A protocol that cannot receive file descriptors.

    @ivar received: fires with the first bytes.
    """

    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """
        Report the bytes, and close.
        """
        self.received.callback(data)
        assert self.transport is not None
        self.transport.loseConnection()


class UNIXSocketTestCase(TestCase):
    """
    A test case with a folder for a socket.
    """

    def setUp(self) -> None:
        """
        Create the folder, and a factory to listen with.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = Path(os.path.relpath(self.folder / "s"))
        self.factory = Factory.forProtocol(Silent)
        self.reactor = UNIXSocketReactor(reactor)

    def mode(self) -> int:
        """
        @return: the permissions of the socket.
        """
        return stat.S_IMODE(self.path.stat().st_mode)

    async def listen(self, **keywords: int) -> IListeningPort:
        """
        Listen until the test ends.
        """
        endpoint = UNIXServerEndpoint(self.reactor, str(self.path), **keywords)
        port: IListeningPort = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def refused(self) -> CannotListenError:
        """
        @return: the error from listening.
        """
        try:
            await self.listen()
        except CannotListenError as problem:
            return problem
        raise AssertionError("it listens")

    def listener(self, backlog: int = 1) -> socket.socket:
        """
        @return: a UNIX socket on which another server listens.
        """
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(str(self.path))
        other.listen(backlog)
        return other

    def accepts(self) -> bool:
        """
        @return: whether a connection is accepted.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0


class OwnSocketTests(UNIXSocketTestCase):
    """
    Tests for a socket that this process creates.
    """

    async def test_mode(self) -> None:
        """
        The socket has the given mode, by default 660, and is removed when the port stops listening.
        """
        for keywords, mode in (({"mode": 0o600}, 0o600), ({"mode": MODE}, 0o660)):
            port = await self.listen(**keywords)
            self.assertEqual(self.mode(), mode)
            self.assertTrue(self.accepts())
            await maybeDeferred(port.stopListening)
            self.assertFalse(self.path.exists())

    def test_group(self) -> None:
        """
        The socket's group is set before it listens, so before anyone can connect.
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
        If the group cannot be set, the socket is removed again.
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
        A socket that another server has put at the same path is not removed.
        """
        port = await self.listen()
        self.path.unlink()
        other = self.listener()
        await maybeDeferred(port.stopListening)
        self.assertTrue(self.accepts())
        other.close()

    async def test_removed(self) -> None:
        """
        A socket that has been removed already is no error.
        """
        port = await self.listen()
        self.path.unlink()
        await maybeDeferred(port.stopListening)
        self.assertFalse(self.path.exists())

    async def test_notAllowed(self) -> None:
        """
        A process that may no longer remove the socket still stops cleanly.
        """
        port = await self.listen()

        def fail(path: Path) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(Path, "unlink", fail)
        await maybeDeferred(port.stopListening)

    def test_noPath(self) -> None:
        """
        An abstract socket is refused.
        """
        error = self.assertRaises(OSError, listeningSocket, Path("\0kaproto"), 1, MODE)
        self.assertEqual(error.errno, errno.EINVAL)

    async def test_descriptors(self) -> None:
        """
        A protocol that cannot receive file descriptors gets the bytes sent with them.  The
        descriptors are closed, and nothing is logged.
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
        A protocol that provides L{IFileDescriptorReceiver} gets file descriptors.
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
    Tests for a path at which another server has listened.
    """

    async def test_abandoned(self) -> None:
        """
        The socket of a killed server is replaced, and the log says so.
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
        A lock on the folder, which every user who can read it may take, does not prevent listening.
        """
        self.listener().close()
        handle = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX)
        await self.listen()
        self.assertTrue(self.accepts())

    async def test_inUse(self) -> None:
        """
        A socket on which another server listens is not replaced.
        """
        self.listener(10)
        problem = await self.refused()
        self.assertEqual(problem.socketError.errno, errno.EADDRINUSE)
        self.assertTrue(self.accepts())

    async def test_busy(self) -> None:
        """
        A socket whose backlog is full counts as in use too.
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
        Files that are not sockets, and symbolic links, are not replaced.
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
        After any other error nothing is removed.
        """
        self.path = self.path / "nothing" / "like" / "this"
        self.assertEqual((await self.refused()).socketError.errno, errno.ENOENT)

    def test_vanished(self) -> None:
        """
        A socket that disappears during the check counts as abandoned.
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
        A server whose socket is replaced before it listens reports that the address is in use.
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
    Tests for a socket that another process has created, as systemd does.
    """

    async def adopt(self, listening: socket.socket) -> IListeningPort:
        """
        Listen on a duplicate of the socket.
        """
        number = os.dup(listening.fileno())
        endpoint = AdoptedStreamServerEndpoint(self.reactor, number, listening.family)
        port: IListeningPort = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def test_leftAlone(self) -> None:
        """
        The socket's mode and owner are not changed, and it still listens when this process stops.
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
        An abstract socket can be adopted.
        """
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(f"\0kaproto-test-{os.getpid()}")
        listening.listen()
        port = await self.adopt(listening)
        self.assertEqual(port.getHost().name[:9], b"\0kaproto-")  # type: ignore[attr-defined]

    async def test_tcp(self) -> None:
        """
        TCP sockets are adopted as by other reactors.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port = await self.adopt(listening)
        self.assertEqual(port.getHost().port, listening.getsockname()[1])  # type: ignore[attr-defined]


class ReactorTests(TestCase):
    """
    Tests for everything but UNIX sockets.
    """

    def test_delegates(self) -> None:
        """
        The wrapper provides the reactor's interfaces and delegates to it.
        """
        memory = MemoryReactor()
        wrapped = UNIXSocketReactor(memory)
        self.assertTrue(IReactorUNIX.providedBy(wrapped))
        self.assertFalse(IReactorTime.providedBy(wrapped))
        cast(MemoryReactor, wrapped).listenTCP(1, Factory())
        self.assertEqual(len(memory.tcpServers), 1)
