"""
Tests for L{kaproto.wire.sasl}.
"""

from __future__ import annotations

import string
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.wire.sasl import (
    SASL_DATA_MAX,
    SASLResult,
    packMechanisms,
    packResult,
    packStart,
    packStep,
    unpackMechanisms,
    unpackResult,
    unpackStart,
    unpackStep,
)
from kaproto.wire.xdr import XDRError

DATA = st.none() | st.binary(max_size=300)


class SASLTests(SynchronousTestCase):
    """
    Tests for the payloads of the SASL procedures.
    """

    def test_startBytes(self) -> None:
        """
        A start has the mechanism, a flag for absent data, and four bytes for each byte of data.
        """
        self.assertEqual(
            packStart("PLAIN", b"\0a"),
            bytes.fromhex("00000005 504c41494e000000 00000000 00000002 00000000 00000061"),
        )

    def test_noDataBytes(self) -> None:
        """
        Absent data has a flag of 1, and empty data a flag of 0.
        """
        self.assertEqual(packStep(None), bytes.fromhex("00000001 00000000"))
        self.assertEqual(packStep(b""), bytes.fromhex("00000000 00000000"))

    def test_resultBytes(self) -> None:
        """
        A result begins with the flag that the exchange is complete.
        """
        self.assertEqual(
            packResult(SASLResult(complete=True, data=None)),
            bytes.fromhex("00000001 00000001 00000000"),
        )

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), DATA)
    def test_start(self, mechanism: str, data: bytes | None) -> None:
        """
        A start survives packing and unpacking.
        """
        self.assertEqual(unpackStart(packStart(mechanism, data)), (mechanism, data))

    @given(DATA)
    def test_step(self, data: bytes | None) -> None:
        """
        A step survives packing and unpacking.
        """
        self.assertEqual(unpackStep(packStep(data)), data)

    @given(st.booleans(), DATA)
    def test_result(self, complete: bool, data: bytes | None) -> None:
        """
        A result survives packing and unpacking.
        """
        result = SASLResult(complete, data)
        self.assertEqual(unpackResult(packResult(result)), result)

    @given(
        st.lists(st.text(string.ascii_uppercase + string.digits + "_-", min_size=1, max_size=20))
    )
    def test_mechanisms(self, names: list[str]) -> None:
        """
        A list of mechanisms, even an empty one, survives packing and unpacking.
        """
        self.assertEqual(unpackMechanisms(packMechanisms(names)), names)

    def test_signExtended(self) -> None:
        """
        Bytes above 127, which C clients send as negative numbers, are read correctly.
        """
        payload = struct.pack(">iIi", 0, 1, -61)
        self.assertEqual(unpackStep(payload), b"\xc3")

    def test_absentDataIgnored(self) -> None:
        """
        Data that is marked as absent is ignored.
        """
        self.assertIsNone(unpackStep(struct.pack(">iIi", 1, 1, 65)))

    def test_tooMuchToPack(self) -> None:
        """
        Data above libvirt's limit cannot be packed.
        """
        packStep(bytes(SASL_DATA_MAX))
        with self.assertRaisesRegex(XDRError, "65537 bytes of SASL data"):
            packStep(bytes(SASL_DATA_MAX + 1))

    def test_tooMuchToUnpack(self) -> None:
        """
        A count above libvirt's limit is refused, whatever follows.
        """
        with self.assertRaisesRegex(XDRError, "65537 bytes of SASL data"):
            unpackStep(struct.pack(">iI", 0, SASL_DATA_MAX + 1))

    @given(st.binary(max_size=40))
    def test_garbage(self, payload: bytes) -> None:
        """
        Arbitrary bytes are decoded or raise L{XDRError}.
        """
        for unpack in (unpackStart, unpackStep, unpackResult, unpackMechanisms):
            try:
                unpack(payload)
            except XDRError:
                continue
