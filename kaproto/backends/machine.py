"""
The embedded host's description of this machine, from Python's standard library, in libvirt's
formats.
"""

from __future__ import annotations

import os
import re
from typing import Final
from xml.sax.saxutils import escape

from kaproto.program import Packer

__all__ = ["architecture", "capabilities", "nodeInfo", "versionNumber"]

_MODEL_SIZE: Final = 32


def architecture() -> str:
    """
    @return: the name of the processor's architecture, escaped for XML.
    """
    return escape(os.uname().machine)


def nodeInfo() -> bytes:
    """
    @return: the packed result of C{REMOTE_PROC_NODE_GET_INFO}.  It reports all CPUs as cores of
        one socket, and the frequency 0, as libvirt allows for a host with an unknown topology.
    """
    cpus = os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    model = os.uname().machine.encode()[: _MODEL_SIZE - 1].ljust(_MODEL_SIZE, b"\0")
    packer = Packer().chars(model).uint64(memory)
    for number in (cpus, 0, 1, 1, cpus, 1):  # CPUs, MHz, nodes, sockets, cores, threads
        packer.int32(number)
    return packer.packed()


def capabilities() -> str:
    """
    @return: the same topology as XML.
    """
    return (
        "<capabilities>\n"
        "  <host>\n"
        "    <cpu>\n"
        f"      <arch>{architecture()}</arch>\n"
        f"      <topology sockets='1' dies='1' cores='{os.cpu_count() or 1}' threads='1'/>\n"
        "    </cpu>\n"
        "  </host>\n"
        "</capabilities>\n"
    )


def versionNumber(version: str) -> int:
    """
    @param version: a version, such as C{"1.2.3"} or C{"1.2.3rc1"}.
    @return: libvirt's number for it: major * 1,000,000 + minor * 1,000 + release.
    """
    major, minor, release = (int(part) for part in re.findall(r"\d+", version)[:3])
    return major * 1_000_000 + minor * 1_000 + release
