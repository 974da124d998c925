"""
Tests for L{kaproto.wire.domains}.
"""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kaproto.wire.domains import (
    Domain,
    DomainAndFlags,
    DomainInfo,
    DomainList,
    DomainState,
    EventID,
    LifecycleEvent,
    LifecycleEventType,
    ListAllDomains,
    ListFlag,
    RegisterCallback,
    StateAndReason,
)
from kaproto.wire.structs import pack, unpack

TEST = Domain("test", UUID("6695eb01-f6a4-8304-79aa-97f2502e193f"), 1)
ON_THE_WIRE = "00000004 74657374 6695eb01f6a4830479aa97f2502e193f 00000001"


class WireTests(SynchronousTestCase):
    """
    Tests for the structs as virsh 9.0.0 and libvirtd 9.0.0 exchange them.
    """

    def test_recorded(self) -> None:
        """
        Each value is packed to the recorded bytes, and unpacked from them.
        """
        for value, expected in (
            (TEST, ON_THE_WIRE),
            (DomainAndFlags(TEST), f"{ON_THE_WIRE} 00000000"),
            (ListAllDomains(flags=3), "00000001 00000003"),
            (DomainList([TEST], 1), f"00000001 {ON_THE_WIRE} 00000001"),
            (
                DomainInfo(DomainState.RUNNING, 8388608, 2097152, 2, 0x18EB794436A47070),
                "00000001 00000000 00800000 00000000 00200000 00000002 18eb794436a47070",
            ),
            (StateAndReason(DomainState.PAUSED, 1), "00000003 00000001"),
            (RegisterCallback(26), "0000001a 00000000"),
            (RegisterCallback(0, TEST), f"00000000 00000001 {ON_THE_WIRE}"),
            (
                LifecycleEvent(0, TEST, LifecycleEventType.RESUMED, 0),
                f"00000000 {ON_THE_WIRE} 00000004 00000000",
            ),
        ):
            self.assertEqual(pack(value), bytes.fromhex(expected))
            self.assertEqual(unpack(type(value), bytes.fromhex(expected)), value)


class NumbersTests(SynchronousTestCase):
    """
    Tests for the numbers of libvirt's public enums.
    """

    def test_names(self) -> None:
        """
        Enums count from 0, and flags are single bits.
        """
        for enum, names in (
            (DomainState, "NOSTATE RUNNING BLOCKED PAUSED SHUTDOWN SHUTOFF CRASHED PMSUSPENDED"),
            (
                LifecycleEventType,
                "DEFINED UNDEFINED STARTED SUSPENDED RESUMED STOPPED SHUTDOWN PMSUSPENDED CRASHED",
            ),
            (EventID, "LIFECYCLE"),
        ):
            numbered = {name: number for number, name in enumerate(names.split())}
            self.assertEqual({each.name: int(each) for each in enum}, numbered)
        self.assertEqual([int(flag) for flag in ListFlag], [1 << bit for bit in range(16)])

    def test_newer(self) -> None:
        """
        An unknown number, from a newer libvirt, keeps its value.
        """
        for enum in (DomainState, LifecycleEventType):
            self.assertEqual(enum(99), 99)
            self.assertEqual(enum(99).name, "UNKNOWN_99")
            self.assertRaises(ValueError, enum, "running")
        unknown = StateAndReason(DomainState(99), 1)
        self.assertEqual(unpack(StateAndReason, pack(unknown)), unknown)
