"""
Tests for kaproto's client with the domains of a real libvirtd and of kaserver's embedded host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from twisted.internet.defer import Deferred

from kaproto.client import (
    Connection,
    Domain,
    DomainEvent,
    DomainState,
    EventStream,
    KeepAliveClientService,
    LifecycleEventType,
    ListFlag,
    Snapshot,
    connect,
)
from kaproto.errors import ConnectionClosed, RemoteError
from tests.interop.programs import runVirsh
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import InteropTestCase, reactor

_T = TypeVar("_T")


def soon(awaited: Deferred[_T]) -> Deferred[_T]:
    """
    Wait for at most ten seconds.
    """
    return awaited.addTimeout(10, reactor)


async def following(events: AsyncIterator[_T]) -> _T:
    """
    @return: the next event.
    """
    return await anext(events)


class DomainTestCase(InteropTestCase):
    """
    A test with a connection and a domain.
    """

    async def connected(self, uri: str) -> tuple[Connection, Domain]:
        """
        Connect.

        @return: the connection, and the domain C{test}.
        """
        connection = await connect(reactor, uri)
        self.addCleanup(connection.close)
        return connection, await connection.domainByName("test")

    async def suspendAndResume(self, uri: str) -> None:
        """
        Suspend and resume the domain C{test}, and check the events on this connection and another.
        """
        connection, domain = await self.connected(uri)
        watching, _domain = await self.connected(uri)
        every = await watching.lifecycleEvents()
        one = await connection.lifecycleEvents(domain)
        self.assertEqual((await domain.state()).state, DomainState.RUNNING)
        self.assertIn(domain, await connection.listAllDomains(ListFlag.ACTIVE))
        await domain.suspend()
        self.assertEqual((await domain.state()).state, DomainState.PAUSED)
        self.assertEqual(await connection.listAllDomains(ListFlag.PAUSED), [domain])
        await domain.resume()
        self.assertEqual((await domain.state()).state, DomainState.RUNNING)
        for stream in (every, one):
            self.assertEqual(await self.kinds(stream, 2), ["SUSPENDED", "RESUMED"])
        one.stop()
        await domain.suspend()
        self.assertEqual(await self.kinds(every, 1), ["SUSPENDED"])
        await domain.resume()
        with self.assertRaises(ConnectionClosed):
            await one.next()

    async def kinds(self, stream: EventStream[DomainEvent], number: int) -> list[str]:
        """
        @return: the next events of C{test}, by name.
        """
        events = [await soon(stream.next()) for _ in range(number)]
        self.assertEqual({each.domain.name for each in events}, {"test"})
        return [each.event.name for each in events]


class EmbeddedHostTests(DomainTestCase):
    """
    Tests for kaserver's embedded host.
    """

    tools = ()

    async def test_domain(self) -> None:
        """
        The embedded host's domain can be suspended and resumed, with the right events.
        """
        server = await KaServer.start(self, "--mode=2")
        await self.suspendAndResume(server.uri)
        connection, domain = await self.connected(server.uri)
        self.assertEqual(await connection.listAllDomains(), [domain])
        self.assertIn("<name>test</name>", await domain.xml())
        self.assertEqual(list(await connection.domainStates()), [domain])


class LibvirtTests(DomainTestCase):
    """
    Tests for the test driver of a real libvirtd.
    """

    tools = ("libvirtd", "virsh")

    async def test_domain(self) -> None:
        """
        The test driver's domain can be suspended, resumed, shut down, started and destroyed, with
        the right events, and virsh shows the same state.
        """
        daemon = await LibvirtDaemon.start(self)
        await self.suspendAndResume(daemon.unixURI)
        connection, domain = await self.connected(daemon.unixURI)
        self.assertEqual(await connection.hypervisor(), "TEST")
        self.assertEqual(str(await connection.version()), "0.0.2")
        virsh = await runVirsh(self, "-c", daemon.unixURI, "version", "--daemon")
        self.assertIn(f"Running against daemon: {await connection.libVersion()}", virsh.output)
        self.assertIn("<capabilities>", await connection.capabilities())
        self.assertIn("<name>test</name>", await domain.xml())
        info = await domain.info()
        self.assertEqual((info.state, info.cpus), (DomainState.RUNNING, 2))
        events = await connection.lifecycleEvents()
        for change, names, state in [
            (domain.shutdown, ["STOPPED"], DomainState.SHUTOFF),
            (domain.start, ["STARTED"], DomainState.RUNNING),
            (domain.destroy, ["STOPPED"], DomainState.SHUTOFF),
        ]:
            await change()
            seen = [(await soon(events.next())).event for _ in names]
            self.assertEqual([each.name for each in seen], names)
            self.assertEqual((await connection.domainStates())[domain].state, state)
        virsh = await runVirsh(self, "-c", daemon.unixURI, "list", "--all")
        self.assertRegex(virsh.output, r"test +shut off")
        with self.assertRaisesRegex(RemoteError, "domain 'test' not running"):
            await domain.suspend()
        self.assertTrue(connection.isAlive())

    async def test_reconnects(self) -> None:
        """
        A service's events continue after libvirtd is killed and restarted, with a snapshot of the
        states first.
        """
        daemon = await LibvirtDaemon.start(self)
        service = KeepAliveClientService(reactor, daemon.unixURI, retryPolicy=lambda _failures: 0.1)
        service.startService()
        self.addCleanup(service.stopService)
        events = service.lifecycleEvents()

        async def states() -> dict[str, DomainState]:
            snapshot = await soon(Deferred.fromCoroutine(following(events)))
            assert isinstance(snapshot, Snapshot)
            self.seconds = snapshot.seconds
            return {domain.name: each.state for domain, each in snapshot.states.items()}

        self.assertEqual(await states(), {"test": DomainState.RUNNING})
        self.assertEqual(self.seconds, 0)
        domain = await (await service.whenConnected()).domainByName("test")
        await domain.suspend()
        event = await soon(Deferred.fromCoroutine(following(events)))
        assert isinstance(event, DomainEvent)
        self.assertEqual(event.event, LifecycleEventType.SUSPENDED)
        await daemon.kill()
        await daemon.restart()
        # A new libvirtd's test driver starts with its default state.
        self.assertEqual(await states(), {"test": DomainState.RUNNING})
        self.assertGreater(self.seconds, 0.1)
