"""
Tests for python3-libvirt through the gateway: callbacks, threads, and each mode with each kind of
client.
"""

from __future__ import annotations

import json
from typing import Any

from tests.interop import wire
from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import runVirsh, startPythonLibvirt
from tests.interop.rawclient import RawClient
from tests.interop.servers import KaServer, LibvirtDaemon
from tests.interop.support import pause, together

_EVENT_LOOP = """
libvirt.registerErrorHandler(lambda context, error: None, None)
libvirt.virEventRegisterDefaultImpl()

def turn():
    while True:
        libvirt.virEventRunDefaultImpl()

threading.Thread(target=turn, daemon=True).start()
"""

_CALLBACKS = (
    _EVENT_LOOP
    + """
seen = []

def lifecycle(connection, domain, event, detail, opaque):
    seen.append([domain.name(), event, detail, opaque])

connection = libvirt.open(sys.argv[1])
connection.setKeepAlive(1, 5)
number = connection.domainEventRegisterAny(
    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, "opaque")
print("registered")
domain = connection.lookupByName("test")
domain.suspend()
sys.stdin.readline()
deadline = time.monotonic() + 10
while len(seen) < 4 and time.monotonic() < deadline:
    time.sleep(0.01)
connection.domainEventDeregisterAny(number)
domain.suspend()
del domain
print(json.dumps({"seen": seen, "left open": connection.close()}))
"""
)

_THREADS = (
    _EVENT_LOOP
    + """
connection = libvirt.open(sys.argv[1])
xml = "<domain type='test'><name>{0}</name><memory>{1}</memory>" \\
      "<os><type>hvm</type></os></domain>"
threads = int(sys.argv[2])
for number in range(threads):
    connection.defineXML(xml.format("guest%d" % number, 1024 + number))
ready = threading.Barrier(threads)
wrong = []
done = []

def work(number):
    ready.wait()
    for turn in range(20):
        name = "guest%d" % number
        domain = connection.lookupByName(name)
        if domain.name() != name or domain.maxMemory() != 1024 + number:
            wrong.append([number, domain.name(), domain.maxMemory()])
        if "<name>%s</name>" % name not in domain.XMLDesc():
            wrong.append([number, "XML"])
        try:
            connection.lookupByName("none%d" % number)
        except libvirt.libvirtError as error:
            if str(error) != "Domain not found":
                wrong.append([number, str(error)])
        else:
            wrong.append([number, "found"])
    done.append(number)

workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps({"done": len(done), "wrong": wrong, "left open": connection.close()}))
"""
)

_OPEN = """
try:
    connection = libvirt.open(sys.argv[1])
except libvirt.libvirtError as error:
    print(json.dumps({"message": error.get_error_message()}))
else:
    time.sleep(0.5)
    print(json.dumps({"hostname": connection.getHostname(), "left open": connection.close()}))
"""


class CallbackTests(GatewayTestCase):
    """
    Tests for a program with an event loop.
    """

    tools = ("virsh", "libvirtd", "python3-libvirt")

    async def test_callbacks(self) -> None:
        """
        Callbacks and threads get what is theirs.
        """
        await together(
            self._lifecycle(),
            self._threads(),
        )

    async def _lifecycle(self) -> None:
        """
        A callback gets the lifecycle events that its program and others cause, with the right
        arguments, until it is deregistered.
        """
        daemon, server = await self.start("--interval=0.5", "--upstream-interval=0.5")
        program = startPythonLibvirt(self, _CALLBACKS, server.uri)
        await program.waitOutput("registered")
        await runVirsh(self, "-c", daemon.uri, "resume test; destroy test; start test")
        program.send("done")
        result = await program.finish(20)
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        seen = json.loads(result.output.splitlines()[-1])
        self.assertEqual(seen["left open"], 0)
        # The events are suspended, resumed, stopped and started, with their details.
        wanted = [["test", event, detail, "opaque"] for event, detail in ((3, 0), (4, 0), (5, 1))]
        self.assertEqual(seen["seen"], [*wanted, ["test", 2, 0, "opaque"]])

    async def _threads(self) -> None:
        """
        Of fifty threads calling through one connection, each gets its own replies and errors.
        """
        _daemon, server = await self.start()
        result = await startPythonLibvirt(self, _THREADS, server.uri, "50").finish(40)
        self.assertEqual((result.exitCode, result.errors), (0, ""))
        self.assertEqual(json.loads(result.output), {"done": 50, "wrong": [], "left open": 0})
        self.assertNotIn("Traceback", server.log)


class ModeTests(GatewayTestCase):
    """
    Tests for each mode with each kind of client.  The interval is so short that a client pinged
    without having asked would fail.
    """

    tools = ("virsh", "libvirtd", "python3-libvirt")

    async def gateways(self) -> tuple[LibvirtDaemon, list[KaServer]]:
        """
        @return: a libvirtd, and a gateway in front of it in each of the three modes.
        """
        daemon = await LibvirtDaemon.start(self)
        servers = await together(
            *(self.startGateway(daemon, "--interval=0.2", mode=mode) for mode in range(3))
        )
        return daemon, servers

    async def see(self, script: str, server: KaServer) -> dict[str, Any]:
        """
        @return: the output of a program that opens, is idle for longer than the interval, and
            calls.
        """
        result = await startPythonLibvirt(self, script, server.uri).finish(20)
        self.assertEqual(result.exitCode, 0)
        seen: dict[str, Any] = json.loads(result.output)
        return seen

    async def test_modes(self) -> None:
        """
        Every mode serves clients that ask for keepalive, and only mode 2 refuses the others.
        """
        await together(
            self._asking(),
            self._notAsking(),
        )

    async def _asking(self) -> None:
        """
        virsh, and a program with an event loop, work in every mode without a remark in the log.
        """
        daemon, servers = await self.gateways()
        uris = [daemon.uri, *(server.uri for server in servers)]
        direct, *results = await together(*(runVirsh(self, "-c", uri, "hostname") for uri in uris))
        self.assertEqual(results, [direct] * 3)
        answers = await together(*(self.see(_EVENT_LOOP + _OPEN, each) for each in servers))
        self.assertEqual(answers, [{"hostname": direct.output.strip(), "left open": 0}] * 3)
        for server in servers:
            self.assertNotIn("mode 2", server.log)

    async def leftAlone(self, server: KaServer) -> None:
        """
        Check that a client that does not ask for keepalive is not pinged, and that its calls are
        answered.
        """
        client = await RawClient.connect(self, server.port)
        await client.open(ask=False)
        await pause(0.5)
        await client.succeed(wire.GET_HOSTNAME)
        self.assertEqual(client.pings, [])

    async def _notAsking(self) -> None:
        """
        Modes 0 and 1 accept, without pings, a program without an event loop and a client that does
        not ask for keepalive.  Mode 1 logs that mode 2 would refuse them.  Mode 2 refuses them with
        a message that says what to do.
        """
        _daemon, servers = await self.gateways()
        first, second, third = await together(*(self.see(_OPEN, each) for each in servers))
        self.assertEqual(first, second)
        self.assertEqual(first["left open"], 0)
        self.assertIn("virEventRegisterDefaultImpl", third["message"])
        await together(*(self.leftAlone(server) for server in servers[:2]))
        client = await RawClient.connect(self, servers[2].port)
        await client.succeed(wire.AUTH_LIST)
        answer = await client.call(wire.OPEN, wire.OPEN_ARGUMENTS)
        assert answer.error is not None
        self.assertEqual(answer.error[:3], (9, 7, 2))
        self.assertIn("ask for feature 10 and answer pings", answer.error.message)
        await client.waitLost(1)
        remarks = [server.log.count("mode 2 would refuse this client") for server in servers]
        self.assertEqual(remarks, [0, 2, 0])
        self.assertEqual(servers[2].log.count("refused tcp 127.0.0.1:"), 2)
