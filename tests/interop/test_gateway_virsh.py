"""
Tests for virsh through the gateway: it prints what it prints without.
"""

from __future__ import annotations

import os

from tests.interop.gateway import GatewayTestCase
from tests.interop.programs import runVirsh, startVirsh
from tests.interop.support import together

_READING = """
capabilities
domcapabilities
freecell
hostname
maxvcpus
nodecpumap
nodeinfo
nodememstats
sysinfo
uri
version
version --daemon
list
list --all --name
list --all --uuid
list --title
domid test
domname 1
domuuid test
domstate test --reason
dumpxml test
dumpxml test --inactive
domblklist test
domblkinfo test vda
domiflist test
domif-getlink test testnet0
domjobinfo test
domstats
vcpucount test
vcpupin test
emulatorpin test
iothreadinfo test
schedinfo test
memtune test
numatune test
blkiotune test
blkdeviotune test vda
perf test
desc test
metadata test http://example.com/
domfsinfo test
domhostname test
guestvcpus test
screenshot test /dev/null
vncdisplay test
snapshot-list test
snapshot-current test
checkpoint-list test
cpu-models x86_64
net-list --all
net-info default
net-dumpxml default
iface-list --all
iface-dumpxml eth1
iface-mac eth1
pool-list --all --details
pool-info default-pool
pool-dumpxml default-pool
vol-list default-pool
nodedev-list
nodedev-dumpxml computer
secret-list
nwfilter-list
domxml-to-native qemu-argv /dev/null
find-storage-pool-sources dir
dominfo nobody
net-info nobody
""".strip().splitlines()
"""
Commands that change nothing and print the same each time, some of them errors.
"""

_DOMAIN = """
<domain type='test'>
  <name>guest</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <memory unit='KiB'>262144</memory>
  <vcpu>2</vcpu>
  <os><type>hvm</type></os>
  <devices><disk type='file'><source file='/guest'/><target dev='vda'/></disk></devices>
</domain>
"""

_VOLUME = "<volume><name>disk</name><capacity unit='MiB'>8</capacity></volume>"

_WRITING = """
define {folder}/domain.xml
list --all --name
domstate guest
start guest
domstate guest --reason
suspend guest
domstate guest --reason
resume guest
domstate guest --reason
snapshot-create-as guest first
snapshot-create-as guest second
snapshot-list guest --name
snapshot-current guest --name
snapshot-revert guest first
snapshot-delete guest second
snapshot-delete guest first
setmem guest 131072
setvcpus guest 1
autostart guest
desc guest --config --title new-title
edit guest
dumpxml guest --inactive
shutdown guest
domstate guest --reason
undefine guest
list --all --name
net-destroy default
net-list --all
net-start default
net-list
vol-create default-pool {folder}/volume.xml
vol-list default-pool
vol-info disk --pool default-pool
vol-dumpxml disk --pool default-pool
vol-clone disk copy --pool default-pool
vol-delete copy --pool default-pool
vol-delete disk --pool default-pool
vol-list default-pool
pool-destroy default-pool
pool-list --all
pool-start default-pool
""".strip().splitlines()


class SameOutputTests(GatewayTestCase):
    """
    Tests for the same commands, directly and through the gateway.
    """

    async def test_same(self) -> None:
        """
        Commands that read or write, and a screenshot, have the same output.
        """
        await together(
            self._reading(),
            self._writing(),
            self._screenshot(),
        )

    async def _reading(self) -> None:
        """
        More than sixty reading commands print the same, including errors.
        """
        self.assertGreater(len(_READING), 60)
        daemon, server = await self.start()
        direct, through = await together(
            *(self.virsh(each.uri, _READING) for each in (daemon, server))
        )
        shown = direct.output.replace(str(daemon.port), str(server.port))
        self.assertEqual(through.output, shown)
        self.assertEqual(through.errors, direct.errors)
        self.assertEqual(through.exitCode, direct.exitCode)
        for line in (
            "=== net-info nobody",
            "Running hypervisor: TEST",
            "Capacity:       100.00 GiB",
        ):
            self.assertIn(line, through.output)
        self.assertIn("error: failed to get domain 'nobody'", through.errors)
        self.assertNotIn("Traceback", server.log)

    async def _writing(self) -> None:
        """
        Commands that change domains, snapshots, networks, volumes and pools print the same at every
        step.
        """
        daemon, server = await self.start()
        folder = self.privateDirectory()
        for name, text in (("domain.xml", _DOMAIN), ("volume.xml", _VOLUME)):
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text)
        commands = [command.format(folder=folder) for command in _WRITING]
        editor = {"EDITOR": "sed -i s,/guest,/edited,"}
        direct = await self.virsh(daemon.uri, commands, editor)
        through = await self.virsh(server.uri, commands, editor)
        self.assertEqual((direct.exitCode, direct.errors), (0, ""))
        self.assertEqual(through, direct)
        for seen in (
            "paused (user)",
            "running (unpaused)",
            "second",
            "Domain 'guest' XML configuration edited",
            "<source file='/edited'/>",
            "<title>new-title</title>",
            "shut off (shutdown)",
            "Vol copy cloned from disk",
        ):
            self.assertIn(seen, through.output)

    async def _screenshot(self) -> None:
        """
        A screenshot, sent as a stream, is the same picture.
        """
        daemon, server = await self.start()
        pictures = []
        for each in (daemon, server):
            path = os.path.join(self.privateDirectory(), "picture")
            result = await self.virsh(each.uri, [f"screenshot test {path}"])
            self.assertEqual((result.exitCode, result.errors), (0, ""))
            with open(path, "rb") as file:
                pictures.append(file.read())
        self.assertEqual(pictures[0], pictures[1])
        self.assertTrue(pictures[0].startswith(b"\x89PNG"))


class EventTests(GatewayTestCase):
    """
    Tests for C{virsh event}.
    """

    async def test_all(self) -> None:
        """
        C{virsh event --all --loop} through the gateway gets the events that another virsh causes,
        through the gateway or directly.
        """
        daemon, server = await self.start("--interval=0.5", "--upstream-interval=0.5")
        watching = startVirsh(self, "-c", server.uri)
        await watching.waitOutput("virsh # ")
        await watching.ask("event --all --loop", "event --all")
        for uri, command, event in (
            (server.uri, "suspend", "Suspended Paused"),
            (daemon.uri, "resume", "Resumed Unpaused"),
        ):
            result = await runVirsh(self, "-c", uri, command, "test")
            self.assertEqual((result.exitCode, result.errors), (0, ""))
            await watching.waitOutput(f"event 'lifecycle' for domain 'test': {event}")
        self.assertTrue(watching.running)
        self.assertEqual(watching.errors, "")
