"""
Tests for L{kaproto.backends.machine}.
"""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase

from kaproto import __version__
from kaproto.backends.machine import capabilities, nodeInfo, versionNumber
from kaproto.wire.xdr import Unpacker, XDRError


class VersionTests(SynchronousTestCase):
    """
    Tests for version numbers in libvirt's format.
    """

    def test_number(self) -> None:
        """
        A version is one number: the major version counts a million, the minor one a thousand.
        """
        for version, number in {
            "1.2.3": 1002003,
            "0.1.0": 1000,
            "12.34.56.dev7": 12034056,
            "1.2.3rc1": 1002003,
        }.items():
            self.assertEqual(versionNumber(version), number)
        self.assertGreater(versionNumber(__version__), 0)


class MachineTests(SynchronousTestCase):
    """
    Tests for the description of the machine.
    """

    def test_nodeInfo(self) -> None:
        """
        Architecture, memory and number of CPUs are those of this machine; the CPUs are cores of one
        socket.
        """
        answer = Unpacker(nodeInfo())
        self.assertEqual(answer.chars(32).rstrip(b"\0").decode(), os.uname().machine)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.assertEqual(answer.uint64(), memory // 1024)
        cpus = os.cpu_count()
        self.assertEqual([answer.int32() for _number in range(6)], [cpus, 0, 1, 1, cpus, 1])
        self.assertRaises(XDRError, answer.int32)

    def test_longModel(self) -> None:
        """
        An architecture that is too long for its field is truncated, and still ends with a zero.
        """
        self.patch(os, "uname", lambda: os.uname_result(("", "", "", "", "m" * 40)))
        self.assertEqual(Unpacker(nodeInfo()).chars(32), b"m" * 31 + b"\0")

    def test_capabilities(self) -> None:
        """
        The capabilities are XML with the architecture and the topology.
        """
        document = ET.fromstring(capabilities())
        self.assertEqual(document.findtext("host/cpu/arch"), os.uname().machine)
        topology = document.find("host/cpu/topology")
        assert topology is not None
        self.assertEqual(topology.get("cores"), str(os.cpu_count()))
