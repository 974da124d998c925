"""
Tests for uploads and downloads of volumes through the gateway, also with clients that do not read
and a libvirtd that does not.
"""

from __future__ import annotations

import hashlib
import os
import struct

from twisted.trial.unittest import SkipTest

from tests.interop import wire
from tests.interop.gateway import GatewayTestCase, residentKiB
from tests.interop.rawclient import RawClient
from tests.interop.secure import SecureServer, SecureTestCase
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import REQUIRE_VARIABLE, pause, together, waitUntil

_UPLOAD = 208
_DOWNLOAD = 209
_STREAM = 3
_OK = 0
_CONTINUE = 2

_MIB = 1 << 20
_CLIENTS = 8
_LENGTH = 12 * _MIB
"""
More than the kernel buffers on one connection's path.
"""

_CHUNK = 262120


class _StreamClient(RawClient):
    """
    A client that transfers one volume.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stream = -1
        self._procedure = 0

    async def openStorage(self) -> None:
        """
        Ask for keepalive, and open libvirtd's storage driver.
        """
        await self.succeed(wire.AUTH_LIST)
        await self.succeed(wire.SUPPORTS_FEATURE, struct.pack(">i", wire.FEATURE_KEEPALIVE))
        await self.succeed(wire.OPEN, wire.optionalString("storage:///session") + bytes(4))

    def startStream(self, procedure: int, folder: str, name: str) -> None:
        """
        Start the upload or download of a whole volume.
        """
        self._procedure = procedure
        volume = b"".join(map(wire.string, ("pool", name, os.path.join(folder, name))))
        self.stream = self.sendCall(procedure, volume + struct.pack(">QQI", 0, _LENGTH, 0))

    def writeStream(self, data: bytes, status: int) -> None:
        """
        Send a piece of the stream, or its end.
        """
        self.write(
            wire.encode(self._procedure, data, serial=self.stream, kind=_STREAM, status=status)
        )

    def pieces(self, status: int) -> list[bytes]:
        """
        @return: the received pieces of the stream with that status.
        """
        return [
            frame.payload
            for frame in self.frames
            if (frame.kind, frame.serial, frame.status) == (_STREAM, self.stream, status)
        ]

    async def ended(self) -> None:
        """
        Wait for the end of the data, an empty piece.
        """
        await waitUntil(lambda: b"" in self.pieces(_CONTINUE), "the end of a stream", 30)

    async def confirmed(self) -> None:
        """
        Wait until libvirtd has confirmed the end of the stream.
        """
        await waitUntil(lambda: self.pieces(_OK), "the confirmation of a stream", 30)

    def digest(self) -> str:
        """
        @return: the hash of all received data.
        """
        return hashlib.sha256(b"".join(self.pieces(_CONTINUE))).hexdigest()


class StreamTestCase(GatewayTestCase):
    """
    A test with a storage pool.
    """

    async def startWithPool(self, *arguments: str) -> tuple[LibvirtDaemon, KaServer, str]:
        """
        Start a gateway, and libvirtd with a pool named C{pool}.

        @param arguments: for kaserver.
        @return: libvirtd, the gateway, and the folder of the pool.
        """
        daemon, server = await self.start(*arguments)
        folder = os.path.join(os.path.dirname(daemon.socketPath), "pool")
        command = f"pool-create-as pool dir --target {folder} --build"
        result = await self.virsh(self.storage(server), [command])
        if "no connection driver available" in result.errors:
            assert os.environ.get(REQUIRE_VARIABLE) != "1", result.errors
            raise SkipTest("this libvirtd has no storage driver")
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        return daemon, server, folder

    def storage(self, server: KaServer) -> str:
        """
        @return: the URI of the storage driver behind a gateway.
        """
        return server.uri.replace("test+", "storage+").replace("/default", "/session")

    def file(self, data: bytes) -> str:
        """
        @return: the path of a new file.
        """
        path = os.path.join(self.privateDirectory(), "data")
        with open(path, "wb") as file:
            file.write(data)
        return path

    def digest(self, path: str) -> str:
        """
        @return: the hash of a file.
        """
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class VirshTests(StreamTestCase, SecureTestCase):
    """
    Tests for C{virsh vol-upload} and C{virsh vol-download}.
    """

    async def test_volume(self) -> None:
        """
        64 MiB are the same after upload and download.  So are 16 MiB with a hole, which stays a
        hole.
        """
        _daemon, server, folder = await self.startWithPool()
        await self._transfer(self.storage(server), folder)

    async def test_TLS(self) -> None:
        """
        The same over TLS.
        """
        daemon, _server, folder = await self.startWithPool()
        server = await SecureServer.start(
            self, self.listener(), f"--upstream=unix:{daemon.socketPath}"
        )
        uri = server.tls(self.alice).replace("test+", "storage+").replace("/default", "/session")
        await self._transfer(uri, folder)

    async def _transfer(self, uri: str, folder: str) -> None:
        full = self.file(os.urandom(64 * _MIB))
        sparse = self.file(os.urandom(_MIB))
        with open(sparse, "r+b") as file:
            file.seek(15 * _MIB)
            file.write(os.urandom(_MIB))
        result = await self.virsh(
            uri,
            [
                "vol-create-as pool full 64M --format raw",
                f"vol-upload --pool pool full {full}",
                f"vol-download --pool pool full {full}.back",
                "vol-create-as pool sparse 16M --allocation 0 --format raw",
                f"vol-upload --pool pool sparse {sparse} --sparse",
                f"vol-download --pool pool sparse {sparse}.back --sparse",
            ],
        )
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        for source in (full, sparse):
            self.assertEqual(self.digest(f"{source}.back"), self.digest(source))
        for path in (os.path.join(folder, "sparse"), f"{sparse}.back"):
            status = os.stat(path)
            self.assertEqual(status.st_size, 16 * _MIB)
            self.assertLess(status.st_blocks * 512, 8 * _MIB)


class PressureTests(StreamTestCase):
    """
    Tests for streams with one side that does not read for longer than the keepalive timeout, and
    then continues.
    """

    async def streamClients(self, server: KaServer) -> list[_StreamClient]:
        """
        @return: clients that have opened the storage driver.
        """
        clients = []
        for _number in range(_CLIENTS):
            client = await _StreamClient.connect(self, server.port)
            assert isinstance(client, _StreamClient)
            await client.openStorage()
            clients.append(client)
        return clients

    def assertStuck(self, daemon: LibvirtDaemon, folder: str) -> None:
        """
        Check that libvirtd has a file open for each client, and has reached the end of none.
        """
        files = f"/proc/{daemon.program.pid}"
        offsets = []
        for number in os.listdir(f"{files}/fd"):
            if os.readlink(f"{files}/fd/{number}").startswith(f"{folder}/"):
                with open(f"{files}/fdinfo/{number}", encoding="ascii") as file:
                    offsets.append(int(file.readline().removeprefix("pos:")))
        self.assertEqual(len(offsets), _CLIENTS)
        self.assertLess(max(offsets), _LENGTH)

    def assertSmall(self, server: KaServer, before: int) -> None:
        """
        Check that kaserver's memory has grown by less than 1 MiB per connection.
        """
        grown = residentKiB(server.program.pid) - before
        self.assertLess(grown, _CLIENTS * 1024, f"{grown} KiB for {_CLIENTS} connections")

    async def test_clientsDoNotRead(self) -> None:
        """
        While clients do not read their downloads, kaserver buffers little, and does not declare
        libvirtd dead, though it has not read from it for longer than the timeout.  When the clients
        read on, all data arrives intact.
        """
        daemon, server, folder = await self.startWithPool(
            "--interval=30", "--upstream-interval=0.2", "--upstream-count=2"
        )
        source = self.file(os.urandom(_LENGTH))
        result = await self.virsh(
            self.storage(server),
            [
                f"vol-create-as pool disk {_LENGTH}B --format raw",
                f"vol-upload --pool pool disk {source}",
            ],
        )
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        clients = await self.streamClients(server)
        before = residentKiB(server.program.pid)
        for client in clients:
            client.startStream(_DOWNLOAD, folder, "disk")
            client.transport.pauseProducing()
        await pause(1.3)
        self.assertStuck(daemon, folder)
        self.assertSmall(server, before)
        self.assertEqual(server.log.count("keepalive timeout"), 0)
        for client in clients:
            client.transport.resumeProducing()
        for client in clients:
            await client.ended()
            client.writeStream(b"", _OK)
            await client.confirmed()
            self.assertEqual(client.digest(), self.digest(source))
        self.assertSmall(server, before)

    async def test_serverDoesNotRead(self) -> None:
        """
        While a frozen libvirtd does not read uploads, kaserver buffers little, and does not declare
        the clients dead, though it has not read from them for longer than the timeout.  When
        libvirtd continues, all data arrives intact.
        """
        daemon, server, folder = await self.startWithPool(
            "--interval=0.2", "--count=2", "--upstream-interval=30"
        )
        names = [f"disk{number}" for number in range(_CLIENTS)]
        result = await self.virsh(
            self.storage(server),
            [f"vol-create-as pool {name} {_LENGTH}B --format raw" for name in names],
        )
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        clients = await self.streamClients(server)
        before = residentKiB(server.program.pid)
        for client, name in zip(clients, names, strict=True):
            client.startStream(_UPLOAD, folder, name)
        await together(*(client.reply(client.stream) for client in clients))
        daemon.freeze()
        data = os.urandom(_LENGTH)
        for client in clients:
            for begin in range(0, _LENGTH, _CHUNK):
                client.writeStream(data[begin : begin + _CHUNK], _CONTINUE)
            client.writeStream(b"", _OK)
        await pause(1.3)
        self.assertStuck(daemon, folder)
        self.assertSmall(server, before)
        self.assertEqual([client.lostAt for client in clients], [None] * _CLIENTS)
        daemon.thaw()
        for client in clients:
            await client.confirmed()
        wanted = hashlib.sha256(data).hexdigest()
        for name in names:
            self.assertEqual(self.digest(os.path.join(folder, name)), wanted)
        self.assertEqual(server.log.count("keepalive timeout"), 0)
        self.assertSmall(server, before)
