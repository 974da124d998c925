"""
Tests for L{kaproto.backends.machine}, mostly on directory trees made up to look like machines.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from uuid import UUID
from xml.etree import ElementTree as ET

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.machine import NodeInfo, capabilities, hostname, nodeInfo

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"
MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"

Tree = dict[str, str]


def cpuFiles(
    cpu: int, siblings: str, package: int = 0, core: int = 0, die: int | None = None
) -> Tree:
    """
    Make the files that tell one CPU's place.
    """
    topology = f"{CPUS}/cpu{cpu}/topology"
    files = {
        f"{topology}/physical_package_id": f"{package}\n",
        f"{topology}/core_id": f"{core}\n",
        f"{topology}/thread_siblings_list": f"{siblings}\n",
    }
    return files if die is None else files | {f"{topology}/die_id": f"{die}\n"}


def machineFiles(
    nodes: int = 1,
    sockets: int = 1,
    cores: int = 1,
    threads: int = 1,
    offline: Collection[int] = (),
) -> Tree:
    """
    Make the files of a regular machine, numbered as Linux does it: the first threads of all cores
    and then the second ones.  Node C{n} has C{n + 1} GiB.
    """
    perThread = nodes * sockets * cores
    total = perThread * threads
    online = [cpu for cpu in range(total) if cpu not in offline]
    files = {
        "proc/meminfo": "MemTotal:       8388608 kB\nMemFree:         102400 kB\n",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Water clock: 7 CPU\ncpu MHz\t\t: 2596.930\n",
        f"{CPUS}/present": f"0-{total - 1}\n",
        f"{CPUS}/online": ",".join(map(str, online)),
        f"{NODES}/online": f"0-{nodes - 1}\n",
    }
    for node in range(nodes):
        held = [cpu for cpu in online if cpu % perThread // (sockets * cores) == node]
        files[f"{NODES}/node{node}/cpulist"] = ",".join(map(str, held)) + "\n"
        files[f"{NODES}/node{node}/meminfo"] = f"Node {node} MemTotal:  {node + 1 << 20} kB\n"
    for cpu in online:
        core = cpu % perThread
        siblings = ",".join(str(other) for other in online if other % perThread == core)
        files |= cpuFiles(cpu, siblings, core // cores, core % cores, die=0)
    return files


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """
    Write the files below a directory, which need not exist, and return that directory.
    """
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def shape(info: NodeInfo) -> tuple[int, int, int, int]:
    """
    Pick out the topology of a machine.
    """
    return info.nodes, info.sockets, info.cores, info.threads


def only(parent: ET.Element, path: str) -> ET.Element:
    """
    Find the one element at a path.
    """
    (found,) = parent.findall(path)
    return found


class MachineTestCase(SynchronousTestCase):
    """
    A test that makes machines up.
    """

    def plant(self, *layers: Tree) -> Path:
        """
        Make the tree of a machine; in later layers are the files that replace earlier ones.
        """
        return plant(Path(self.mktemp()), {k: v for layer in layers for k, v in layer.items()})

    def document(self, root: Path) -> ET.Element:
        """
        Parse the capabilities of the machine at C{root}.
        """
        return ET.fromstring(capabilities(nodeInfo(root), root))


class NodeInfoTests(MachineTestCase):
    """
    The machine in numbers.
    """

    def test_twoNodes(self) -> None:
        """
        With a NUMA node for each of two sockets, sockets are counted per node.
        """
        info = nodeInfo(self.plant(machineFiles(nodes=2, cores=4, threads=2)))
        self.assertEqual(
            info,
            NodeInfo(
                model=os.uname().machine,
                memory=8388608,
                cpus=16,
                mhz=2596,
                nodes=2,
                sockets=1,
                cores=4,
                threads=2,
            ),
        )

    def test_twoSocketsInOneNode(self) -> None:
        """
        Without NUMA both sockets are in the one node.
        """
        info = nodeInfo(self.plant(machineFiles(sockets=2, cores=4, threads=2)))
        self.assertEqual((info.cpus, shape(info)), (16, (1, 2, 4, 2)))

    def test_kernelWithoutNUMA(self) -> None:
        """
        A kernel that knows of no nodes gives the same numbers as one node.
        """
        files = machineFiles(sockets=2, cores=4, threads=2)
        bare = {name: text for name, text in files.items() if not name.startswith(NODES)}
        self.assertEqual(shape(nodeInfo(self.plant(bare))), (1, 2, 4, 2))

    def test_socketSpanningNodes(self) -> None:
        """
        A socket divided into two nodes counts as a socket in each of them.
        """
        files = machineFiles(nodes=2, cores=4)
        oneSocket = {name: "0" for name in files if name.endswith("physical_package_id")}
        self.assertEqual(shape(nodeInfo(self.plant(files, oneSocket))), (2, 1, 4, 1))

    def test_dies(self) -> None:
        """
        Cores of different dies are different cores, though their numbers are the same.
        """
        dies = cpuFiles(0, "0", core=0, die=0) | cpuFiles(1, "1", core=0, die=1)
        self.assertEqual(shape(nodeInfo(self.plant(machineFiles(cores=2), dies))), (1, 1, 2, 1))

    def test_memoryOnlyNode(self) -> None:
        """
        A node that has no CPUs does not count among those that have.
        """
        memoryOnly = {f"{NODES}/online": "0-1", f"{NODES}/node1/cpulist": "\n"}
        root = self.plant(machineFiles(cores=2), memoryOnly)
        self.assertEqual(shape(nodeInfo(root)), (1, 1, 2, 1))

    def test_offlineCPUs(self) -> None:
        """
        CPUs that are offline are not among the active ones, but have their place in the topology.
        """
        offline = [3, 11, 13]  # a whole core and a thread
        info = nodeInfo(self.plant(machineFiles(sockets=2, cores=4, threads=2, offline=offline)))
        self.assertEqual((info.cpus, shape(info)), (13, (1, 2, 4, 2)))

    def test_offlineSocket(self) -> None:
        """
        A socket that is offline in one node is known from the sockets of the others.
        """
        info = nodeInfo(self.plant(machineFiles(nodes=2, sockets=2, offline=[3])))
        self.assertEqual((info.cpus, shape(info)), (3, (2, 2, 1, 1)))

    def test_hyperthreadingOff(self) -> None:
        """
        With every second thread offline the kernel shows no threads, so the topology says only
        how many CPUs there could be.
        """
        offline = range(8, 16)
        info = nodeInfo(self.plant(machineFiles(sockets=2, cores=4, threads=2, offline=offline)))
        self.assertEqual((info.cpus, shape(info)), (8, (1, 1, 16, 1)))

    def test_coresOfTwoKinds(self) -> None:
        """
        One core of two threads and two cores of one make no regular topology: single-threaded
        cores in one socket stand for it.
        """
        hybrid = {f"{CPUS}/cpu{cpu}/topology/thread_siblings_list": "0-1" for cpu in (0, 1)}
        info = nodeInfo(self.plant(machineFiles(cores=4), hybrid))
        self.assertEqual((info.cpus, shape(info)), (4, (1, 1, 4, 1)))

    def test_withoutSys(self) -> None:
        """
        A sandbox that hides C{/sys} still has as many CPUs as the operating system says.
        """
        self.patch(os, "cpu_count", lambda: 6)
        info = nodeInfo(self.plant({"proc/meminfo": "MemTotal: 2048 kB\n"}))
        self.assertEqual((info.memory, info.cpus, shape(info)), (2048, 6, (1, 1, 6, 1)))

    def test_nothingKnown(self) -> None:
        """
        Where nothing is readable there is at least one CPU, with memory from the C library and
        libvirt's "unknown" for a frequency.
        """
        self.patch(os, "cpu_count", lambda: None)
        self.patch(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}.__getitem__)
        info = nodeInfo(Path(self.mktemp()))
        self.assertEqual(
            (info.memory, info.cpus, info.mhz, shape(info)), (16000, 1, 0, (1, 1, 1, 1))
        )

    def test_garbage(self) -> None:
        """
        Content that makes no sense is taken for missing.
        """
        self.patch(os, "cpu_count", lambda: 3)
        self.patch(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
        files = machineFiles(cores=3)
        for text in ("", "\n", "é\0", "1-", "3-1", "0-x", "many", "MemTotal: lots kB"):
            with self.subTest(text=text):
                info = nodeInfo(self.plant(dict.fromkeys(files, text)))
                self.assertEqual(
                    (info.memory, info.cpus, info.mhz, shape(info)), (4000, 3, 0, (1, 1, 3, 1))
                )

    def test_unreadable(self) -> None:
        """
        A file that cannot be read, here because it is a directory, is taken for missing.
        """
        self.patch(os, "cpu_count", lambda: 5)
        root = self.plant()
        (root / CPUS / "online").mkdir(parents=True)
        self.assertEqual(nodeInfo(root).cpus, 5)

    def test_placeOfOneUnknown(self) -> None:
        """
        One CPU whose place is unknown, whichever file is at fault, makes the topology irregular.
        """
        for name in ("physical_package_id", "core_id", "thread_siblings_list"):
            with self.subTest(name=name):
                broken = {f"{CPUS}/cpu2/topology/{name}": "?"}
                info = nodeInfo(self.plant(machineFiles(sockets=2, cores=2), broken))
                self.assertEqual(shape(info), (1, 1, 4, 1))

    def test_nodesThatDoNotAddUp(self) -> None:
        """
        Nodes that leave out a CPU, or share one, are not believed.
        """
        for second in ("2", "1-3"):
            with self.subTest(second=second):
                files = machineFiles(nodes=2, cores=2)
                root = self.plant(files, {f"{NODES}/node1/cpulist": second})
                self.assertEqual(shape(nodeInfo(root)), (1, 2, 2, 1))

    def test_frequency(self) -> None:
        """
        The frequency is found under each architecture's name for it, in whole MHz.
        """
        for line, mhz in (
            ("cpu MHz\t\t: 1400.999", 1400),
            ("cpu MHz dynamic : 5200", 5200),
            ("clock\t\t: 3425.000000MHz", 3425),
            ("BogoMIPS\t: 50.00", 0),
        ):
            with self.subTest(line=line):
                root = self.plant({"proc/cpuinfo": f"processor\t: 0\n{line}\nflags\t\t: fpu\n"})
                self.assertEqual(nodeInfo(root).mhz, mhz)

    def test_firstFrequency(self) -> None:
        """
        CPUs that run at different frequencies are described by the first.
        """
        root = self.plant({"proc/cpuinfo": "cpu MHz : 800.0\n\ncpu MHz : 3200.0\n"})
        self.assertEqual(nodeInfo(root).mhz, 800)

    def test_thisMachine(self) -> None:
        """
        The machine that runs the tests is described as the operating system describes it.
        """
        info = nodeInfo()
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
        self.assertEqual(info.model, platform.machine())
        self.assertEqual(info.cpus, os.sysconf("SC_NPROCESSORS_ONLN"))
        self.assertGreaterEqual(info.nodes * info.sockets * info.cores * info.threads, info.cpus)
        self.assertGreater(info.memory, 0)
        self.assertLessEqual(info.memory, physical)


class CapabilitiesTests(MachineTestCase):
    """
    The machine in libvirt's XML.
    """

    def test_document(self) -> None:
        """
        The document names the host, its CPU and the place of each CPU, and no guests.
        """
        root = self.plant(
            machineFiles(threads=2),
            {"sys/class/dmi/id/product_uuid": "0CCDAB7B-E2A3-4D8D-BDFC-658FE27849BC\n"},
        )
        info = NodeInfo("riscv64", 4096, 2, 0, 1, 1, 1, 2)
        self.assertEqual(
            capabilities(info, root),
            """\
<capabilities>
  <host>
    <uuid>0ccdab7b-e2a3-4d8d-bdfc-658fe27849bc</uuid>
    <cpu>
      <arch>riscv64</arch>
      <topology sockets="1" dies="1" cores="1" threads="2" />
    </cpu>
    <topology>
      <cells num="1">
        <cell id="0">
          <memory unit="KiB">4096</memory>
          <cpus num="2">
            <cpu id="0" socket_id="0" die_id="0" core_id="0" siblings="0,1" />
            <cpu id="1" socket_id="0" die_id="0" core_id="0" siblings="0,1" />
          </cpus>
        </cell>
      </cells>
    </topology>
  </host>
</capabilities>
""",
        )

    def test_thisMachine(self) -> None:
        """
        The machine that runs the tests has a document that lists its online CPUs.
        """
        document = ET.fromstring(capabilities(nodeInfo()))
        cpus = document.findall("host/topology/cells/cell/cpus/cpu")
        self.assertEqual(len(cpus), os.sysconf("SC_NPROCESSORS_ONLN"))
        self.assertEqual(only(document, "host/cpu/arch").text, platform.machine())

    def test_cells(self) -> None:
        """
        Each NUMA node is a cell with its own memory and CPUs.
        """
        document = self.document(self.plant(machineFiles(nodes=2, cores=2, threads=2)))
        self.assertEqual(
            [
                (
                    cell.get("id"),
                    cell.findtext("memory"),
                    *(cpu.get("id") for cpu in cell.iter("cpu")),
                )
                for cell in document.iter("cell")
            ],
            [("0", "1048576", "0", "1", "4", "5"), ("1", "2097152", "2", "3", "6", "7")],
        )

    def test_cellsOfUnusualTopology(self) -> None:
        """
        Where the numbers of L{NodeInfo} can no longer tell, the cells still do.
        """
        root = self.plant(machineFiles(nodes=2, cores=2, offline=[2, 3]))
        cells = list(self.document(root).iter("cell"))
        self.assertEqual([only(cell, "cpus").get("num") for cell in cells], ["2", "0"])

    def test_unknownMemoryOfCell(self) -> None:
        """
        A node that does not tell its memory has none in the document, rather than zero.
        """
        root = self.plant(machineFiles(nodes=2), {f"{NODES}/node0/meminfo": ""})
        cells = list(self.document(root).iter("cell"))
        self.assertEqual([len(cell.findall("memory")) for cell in cells], [0, 1])

    def test_unknownPlace(self) -> None:
        """
        A CPU whose place is not known is listed by its number alone.
        """
        self.patch(os, "cpu_count", lambda: 2)
        protocolErrors = {f"{CPUS}/cpu1/topology/thread_siblings_list": "0"}
        for layers in [], [machineFiles(cores=2), cpuFiles(0, "?"), protocolErrors]:
            with self.subTest(layers=len(layers)):
                document = self.document(self.plant(*layers))
                cpus = [cpu.attrib for cpu in document.iterfind(".//cpus/cpu")]
                self.assertEqual(cpus, [{"id": "0"}, {"id": "1"}])

    def test_negativeNumbers(self) -> None:
        """
        What the kernel numbers -1, for want of any, is 0 in the document, as is a die of which an
        old kernel knows nothing.
        """
        files = machineFiles(cores=2) | cpuFiles(0, "0", -1, -1, -1)
        del files[f"{CPUS}/cpu1/topology/die_id"]
        first, second = self.document(self.plant(files)).iterfind(".//cpus/cpu")
        none = {"socket_id": "0", "die_id": "0", "core_id": "0"}
        self.assertEqual(first.attrib, none | {"id": "0", "siblings": "0"})
        self.assertEqual(second.get("die_id"), "0")

    def uuid(self, *files: Tree) -> UUID | None:
        """
        Get the UUID of a machine with the given files, if it has any.
        """
        text = self.document(self.plant(*files)).findtext("host/uuid")
        return None if text is None else UUID(text)

    def test_uuidFromFirmware(self) -> None:
        """
        The firmware's UUID is the host's, as it is for libvirtd, with or without a machine-id.
        """
        product = {"sys/class/dmi/id/product_uuid": "0ccdab7b-e2a3-4d8d-bdfc-658fe27849bc"}
        expected = UUID("0ccdab7b-e2a3-4d8d-bdfc-658fe27849bc")
        self.assertEqual(self.uuid(product), expected)
        self.assertEqual(self.uuid(product, {"etc/machine-id": MACHINE_ID}), expected)

    def test_uuidFromMachineID(self) -> None:
        """
        Without one the UUID follows from the machine-id, which it does not give away.
        """
        uuid = self.uuid({"etc/machine-id": f"{MACHINE_ID}\n"})
        self.assertEqual(uuid, self.uuid({"etc/machine-id": MACHINE_ID}))
        self.assertNotIn(uuid, (None, UUID(MACHINE_ID)))
        self.assertNotEqual(uuid, self.uuid({"etc/machine-id": MACHINE_ID[::-1]}))

    def test_noUUID(self) -> None:
        """
        What is no UUID, or a placeholder for one, is not published.
        """
        for text in ("", "uninitialized", "0" * 32, "ffffffff-ffff-ffff-ffff-ffffffffffff"):
            with self.subTest(text=text):
                files = {"sys/class/dmi/id/product_uuid": text, "etc/machine-id": text}
                self.assertIsNone(self.uuid(files))

    @settings(deadline=None)
    @given(
        st.builds(
            NodeInfo,
            model=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1),
            **dict.fromkeys(
                ["memory", "cpus", "mhz", "nodes", "sockets", "cores", "threads"], st.integers(1)
            ),
        )
    )
    def test_anyNodeInfo(self, info: NodeInfo) -> None:
        """
        Whatever the numbers and the name of the architecture, the document repeats them.
        """
        with TemporaryDirectory() as root:
            host = only(ET.fromstring(capabilities(info, Path(root))), "host")
        self.assertEqual(only(host, "cpu/arch").text, info.model)
        self.assertEqual(only(host, "topology/cells/cell/memory").text, str(info.memory))
        numbers = {"sockets": info.sockets, "dies": 1, "cores": info.cores, "threads": info.threads}
        self.assertEqual(
            only(host, "cpu/topology").attrib,
            {name: str(number) for name, number in numbers.items()},
        )

    @settings(deadline=None, max_examples=50)
    @given(
        st.tuples(*[st.integers(1, 3)] * 4),
        st.sets(st.integers(1, 80)),
    )
    @example((3, 3, 1, 2), set())
    def test_anyMachine(self, size: tuple[int, int, int, int], offline: set[int]) -> None:
        """
        Numbers and document agree on any regular machine with any CPUs but the first offline, and
        the topology always has room for exactly the CPUs that are there.
        """
        nodes, sockets, cores, threads = size
        total = nodes * sockets * cores * threads
        offline &= set(range(total))
        with TemporaryDirectory() as directory:
            root = plant(Path(directory), machineFiles(*size, offline=offline))
            info = nodeInfo(root)
            host = only(ET.fromstring(capabilities(info, root)), "host")
        self.assertEqual(info.cpus, total - len(offline))
        self.assertEqual(info.nodes * info.sockets * info.cores * info.threads, total)
        self.assertIn(shape(info), [size, (1, 1, total, 1)] if offline else [size])
        cells = only(host, "topology/cells")
        self.assertEqual(cells.get("num"), str(len(cells)))
        self.assertEqual(
            [only(cell, "cpus").get("num") for cell in cells],
            [str(len(cell.findall("cpus/cpu"))) for cell in cells],
        )
        cpus = {int(cpu.attrib["id"]): cpu for cpu in cells.iterfind("cell/cpus/cpu")}
        self.assertEqual(set(cpus), set(range(total)) - offline)
        for number, cpu in cpus.items():
            siblings = [int(sibling) for sibling in cpu.attrib["siblings"].split(",")]
            self.assertEqual(siblings, sorted({number, *siblings}))
            for sibling in siblings:
                self.assertEqual(cpus[sibling].attrib | {"id": str(number)}, cpu.attrib)


class HostnameTests(SynchronousTestCase):
    """
    The machine's name.
    """

    def resolve(self, name: str, canonical: str | Exception) -> str:
        """
        Ask for the name of a machine called C{name}, whose resolver answers or raises
        C{canonical}.
        """

        def getaddrinfo(
            host: str, _port: None, *, flags: int
        ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            self.assertEqual((host, flags), (name, socket.AI_CANONNAME))
            if isinstance(canonical, Exception):
                raise canonical
            return [(2, 1, 6, canonical, ("192.0.2.1", 0)), (2, 2, 17, "", ("192.0.2.1", 0))]

        self.patch(socket, "gethostname", lambda: name)
        self.patch(socket, "getaddrinfo", getaddrinfo)
        return hostname()

    def test_qualified(self) -> None:
        """
        A short name becomes the fully qualified one that the resolver knows.
        """
        self.assertEqual(self.resolve("alpha", "alpha.example.org"), "alpha.example.org")

    def test_unhelpfulResolver(self) -> None:
        """
        A resolver that gives no name, or the one that every machine has, changes nothing.
        """
        for canonical in ("", "localhost", "localhost.localdomain"):
            with self.subTest(canonical=canonical):
                self.assertEqual(self.resolve("alpha", canonical), "alpha")

    def test_failingResolver(self) -> None:
        """
        A machine that nobody can resolve has the name that it was given.
        """
        failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.assertEqual(self.resolve("alpha", failure), "alpha")

    def test_tooLong(self) -> None:
        """
        Linux allows a name of 64 characters, one more than the resolver takes.
        """
        name = "a" * 64
        self.patch(socket, "gethostname", lambda: name)
        self.assertEqual(hostname(), name)

    def test_asItIs(self) -> None:
        """
        A name that is qualified already, or that of every machine, is not looked up.
        """

        def getaddrinfo(host: str, *_args: object, **_options: object) -> NoReturn:
            self.fail(f"looked up {host}")

        self.patch(socket, "getaddrinfo", getaddrinfo)
        for name in ("alpha.example.org", "localhost", "localhost.localdomain"):
            with self.subTest(name=name):
                self.patch(socket, "gethostname", lambda name=name: name)
                self.assertEqual(hostname(), name)
