"""
The machine this runs on, in the terms of libvirt's nodeinfo, hostname and capabilities.

The facts come from C{/proc} and C{/sys}.  Containers and sandboxes hide parts of these, so each
fact has a fallback, and what cannot be known is left out or given as libvirt's own "unknown".

Each call reads files, and L{hostname} asks the resolver, so ask once, at start.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid5
from xml.etree import ElementTree as ET

import attrs

__all__ = ["NodeInfo", "capabilities", "hostname", "nodeInfo"]

_CPUS = "sys/devices/system/cpu"
_NODES = "sys/devices/system/node"
_MEMORY = r"MemTotal:\s*(\d+)\s*kB$"
# x86 has "cpu MHz : 2596.130", s390 "cpu MHz dynamic : 5200", POWER "clock : 3425.000000MHz".
_FREQUENCY = r"^(?:cpu MHz|clock)[^:\n]*:\s*(\d+)"
_TOPOLOGY_ID = r"^(-?\d+)$"
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@attrs.frozen
class NodeInfo:
    """
    What libvirt's C{virNodeInfo} says of a host.

    C{nodes * sockets * cores * threads} is the number of CPUs with all of them online.  Where
    the real topology is no such product, as with cores of two kinds, or is not known, it is given
    as one node of one socket of single-threaded cores.

    @ivar model: the architecture, as C{uname -m} names it.
    @ivar memory: in KiB.
    @ivar cpus: how many CPUs are online.
    @ivar mhz: the frequency of the first CPU that tells, or 0 if none does.
    @ivar nodes: NUMA nodes that have CPUs.
    @ivar sockets: sockets per node.
    @ivar cores: cores per socket.
    @ivar threads: threads per core.
    """

    model: str
    memory: int
    cpus: int
    mhz: int
    nodes: int
    sockets: int
    cores: int
    threads: int


@attrs.frozen
class _Place:
    """
    Where a CPU sits, as the kernel numbers it.

    @ivar siblings: the CPUs that share its core, itself included.  They identify the core:
        C{core} does so only within a die.
    """

    socket: int
    die: int
    core: int
    siblings: tuple[int, ...]

    def attributes(self) -> dict[str, object]:
        """
        Name the place as the XML's C{<cpu>} does: all four or none, says libvirt's schema.
        """
        return {
            "socket_id": self.socket,
            "die_id": self.die,
            "core_id": self.core,
            "siblings": ",".join(map(str, self.siblings)),
        }


@attrs.frozen
class _Cell:
    """
    A NUMA node: its memory in KiB and its online CPUs' places, as far as they are known.
    """

    number: int
    memory: int | None
    cpus: dict[int, _Place | None]


def nodeInfo(root: Path = Path("/")) -> NodeInfo:
    """
    Describe the machine in numbers.

    @param root: the directory that holds C{proc} and C{sys}.
    """
    cells = _readCells(root)
    online = [cpu for cell in cells for cpu in cell.cpus]
    present = {*online, *_cpuList(root, _CPUS, "present")}
    nodes, sockets, cores, threads = _shape(cells, len(present))
    return NodeInfo(
        model=os.uname().machine,
        memory=_find(_MEMORY, root, "proc/meminfo")
        or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024,
        cpus=len(online),
        mhz=_find(_FREQUENCY, root, "proc/cpuinfo") or 0,
        nodes=nodes,
        sockets=sockets,
        cores=cores,
        threads=threads,
    )


def capabilities(info: NodeInfo, root: Path = Path("/")) -> str:
    """
    Describe the machine in libvirt's capabilities XML, without guest types: it can run none.

    @param info: what L{nodeInfo} said of the same C{root}.
    @param root: the directory that holds C{etc} and C{sys}.
    """
    document = ET.Element("capabilities")
    host = _add(document, "host")
    if (identity := _hostUUID(root)) is not None:
        _add(host, "uuid").text = str(identity)
    cpu = _add(host, "cpu")
    _add(cpu, "arch").text = info.model
    # NodeInfo counts the cores of all of a socket's dies together.
    _add(cpu, "topology", sockets=info.sockets, dies=1, cores=info.cores, threads=info.threads)
    cells = _readCells(root)
    parent = _add(_add(host, "topology"), "cells", num=len(cells))
    for cell in cells:
        element = _add(parent, "cell", id=cell.number)
        # A lone cell is the whole machine; its own figure may leave out hotplugged memory.
        memory = info.memory if len(cells) == 1 else cell.memory
        if memory is not None:
            _add(element, "memory", unit="KiB").text = str(memory)
        cpus = _add(element, "cpus", num=len(cell.cpus))
        for number, place in cell.cpus.items():
            _add(cpus, "cpu", id=number, **(place.attributes() if place else {}))
    ET.indent(document)
    return ET.tostring(document, encoding="unicode") + "\n"


def hostname() -> str:
    """
    Name the machine as libvirt does: fully qualified if that can be found out, otherwise as set.

    This blocks for as long as the resolver takes: call it at start, not from a running reactor.
    """
    name = socket.gethostname()
    if "." in name or name.startswith("localhost"):
        return name
    try:
        canonical = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3]
    except (OSError, UnicodeError):  # UnicodeError: longer than a name in the DNS may be
        return name
    return name if canonical.startswith("localhost") else canonical or name


def _shape(cells: list[_Cell], total: int) -> tuple[int, int, int, int]:
    """
    Find the nodes, sockets per node, cores per socket and threads per core that make C{total}
    CPUs.  A socket that spans nodes counts as one in each, as it does in C{virNodeInfo}.
    """
    places = [(cell.number, place) for cell in cells for place in cell.cpus.values()]
    cores = {(node, place.socket, place.siblings) for node, place in places if place}
    if all(place for _, place in places):
        sockets = Counter((node, number) for node, number, _ in cores)
        nodes = Counter(node for node, _ in sockets)
        threads = max(len(siblings) for _, _, siblings in cores)
        shape = len(nodes), max(nodes.values()), max(sockets.values()), threads
        if math.prod(shape) == total:
            return shape
    return 1, 1, total, 1


def _readCells(root: Path) -> list[_Cell]:
    """
    Read the NUMA nodes.  If there are none, or they do not hold each online CPU exactly once, all
    CPUs are in one cell.
    """
    online = _cpuList(root, _CPUS, "online") or range(os.cpu_count() or 1)
    places = {cpu: _readPlace(root / _CPUS / f"cpu{cpu}/topology", cpu) for cpu in sorted(online)}
    cells = []
    for number in sorted(_cpuList(root, _NODES, "online")):
        memory = _find(_MEMORY, root, _NODES, f"node{number}/meminfo")
        cpus = _cpuList(root, _NODES, f"node{number}/cpulist")
        cells.append(_Cell(number, memory, {cpu: places[cpu] for cpu in places if cpu in cpus}))
    if sorted(cpu for cell in cells for cpu in cell.cpus) == list(places):
        return cells
    return [_Cell(0, None, places)]


def _readPlace(topology: Path, cpu: int) -> _Place | None:
    number = _find(_TOPOLOGY_ID, topology, "physical_package_id")
    core = _find(_TOPOLOGY_ID, topology, "core_id")
    siblings = _cpuList(topology, "thread_siblings_list")
    if number is None or core is None or cpu not in siblings:
        return None
    # Old kernels have no die_id, and -1 is "no such thing here"; libvirt takes either for 0.
    die = _find(_TOPOLOGY_ID, topology, "die_id") or 0
    return _Place(max(number, 0), max(die, 0), max(core, 0), tuple(sorted(siblings)))


def _hostUUID(root: Path) -> UUID | None:
    """
    Identify the machine: by the UUID in its firmware, as libvirtd does, or by one derived from
    C{/etc/machine-id}, which is itself not for the network to see (machine-id(5)).
    """
    product = _readUUID(root / "sys/class/dmi/id/product_uuid")
    machine = _readUUID(root / "etc/machine-id")
    return product or (machine and uuid5(machine, "kaproto"))


def _readUUID(path: Path) -> UUID | None:
    try:
        uuid = UUID(_read(path))
    except ValueError:
        return None
    # One byte repeated is a placeholder that firmware ships with.
    return uuid if len(set(uuid.bytes)) > 1 else None


def _add(parent: ET.Element, tag: str, /, **attributes: object) -> ET.Element:
    return ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})


def _find(pattern: str, *path: str | Path) -> int | None:
    found = re.search(pattern, _read(Path(*path)), re.MULTILINE)
    return int(found[1]) if found else None


def _cpuList(*path: str | Path) -> set[int]:
    """
    Read a list in the kernel's notation, such as C{0-3,8}.  Anything else is as good as empty.
    """
    text = _read(Path(*path))
    if not _CPU_LIST.fullmatch(text):
        return set()
    ends = [part.split("-") for part in text.split(",")]
    return {cpu for end in ends for cpu in range(int(end[0]), int(end[-1]) + 1)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
