"""
Tests for L{kaproto.wire.xdr}.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.wire.xdr import (
    ARRAY_MAX,
    STRING_MAX,
    Packer,
    PackError,
    ParameterType,
    TypedParameter,
    Unpacker,
    XDRError,
)
from tests.strategies import INT32, INT64, UINT32, UINT64, parameters, texts


class WireTests(SynchronousTestCase):
    """
    Tests for the exact bytes of values.
    """

    def test_numbers(self) -> None:
        """
        Numbers are big-endian, in two's complement, and have four or eight bytes.
        """
        packer = Packer().int32(-2).uint32(0x20008086).uint64(1_002_003).int64(-2).double(-0.5)
        self.assertEqual(
            packer.packed(),
            bytes.fromhex(
                "fffffffe 20008086 00000000 000f4a13 ffffffff fffffffe bfe00000 00000000"
            ),
        )

    def test_booleans(self) -> None:
        """
        A boolean is packed as 1 or 0.  Any number but 0 is unpacked as true, as in libvirt.
        """
        packer = Packer().boolean(True).boolean(None).boolean("x")
        self.assertEqual(packer.packed(), bytes.fromhex("00000001 00000000 00000001"))
        unpacker = Unpacker(bytes.fromhex("00000002 ffffffff 00000000"))
        self.assertEqual([unpacker.boolean() for _number in range(3)], [True, True, False])

    def test_typedParameters(self) -> None:
        """
        A typed parameter has a name, the number of its type, and a value.
        """
        for parameter, expected in (
            (TypedParameter("a", -1, ParameterType.INT), "00000001 ffffffff"),
            (TypedParameter("a", 2**32 - 1, ParameterType.UINT), "00000002 ffffffff"),
            (TypedParameter("a", -1), "00000003 ffffffff ffffffff"),
            (TypedParameter("a", 2**63 - 1), "00000003 7fffffff ffffffff"),
            (TypedParameter("a", 2**63), "00000004 80000000 00000000"),
            (TypedParameter("a", -0.5), "00000005 bfe00000 00000000"),
            (TypedParameter("a", True), "00000006 00000001"),
            (TypedParameter("a", "b"), "00000007 00000001 62000000"),
        ):
            packed = Packer().typedParameters([parameter]).packed()
            self.assertEqual(packed, bytes.fromhex("00000001 00000001 61000000" + expected))
            (again,) = Unpacker(packed).typedParameters()
            self.assertEqual(again, parameter)
            self.assertIs(type(again.value), type(parameter.value))

    def test_oddParameters(self) -> None:
        """
        A parameter of unknown type cannot be unpacked, and a value that is not of its type cannot
        be packed.
        """
        for kind in (0, 8):
            data = Packer().uint32(1).string("a").int32(kind).packed() + bytes(8)
            error = self.assertRaises(XDRError, Unpacker(data).typedParameters)
            self.assertIn(f"no parameter type {kind}", str(error))
        for value, type_ in (("b", 3), ("b", 6), (1, 7), (2**31, 1), (1.5, 4)):
            parameter = TypedParameter("a", value, ParameterType(type_))
            self.assertRaises(PackError, Packer().typedParameters, [parameter])
        truth = TypedParameter("a", 2, ParameterType.BOOLEAN)
        packed = Packer().typedParameters([truth]).packed()
        self.assertEqual(packed[-4:], b"\0\0\0\1")

    def test_nothing(self) -> None:
        """
        A new packer has no bytes.
        """
        self.assertEqual(Packer().packed(), b"")

    def test_strings(self) -> None:
        """
        A string is packed as its length in bytes, its bytes in UTF-8, and zeros up to a multiple of
        four bytes.
        """
        for text, expected in [
            ("", "00000000"),
            ("a", "00000001 61000000"),
            ("ab", "00000002 61620000"),
            ("abc", "00000003 61626300"),
            ("abcd", "00000004 61626364"),
            ("é", "00000002 c3a90000"),
        ]:
            self.assertEqual(Packer().string(text).packed(), bytes.fromhex(expected), text)

    def test_optionalStrings(self) -> None:
        """
        An absent optional string is packed as 0, a present one as 1 and the string.
        """
        packer = Packer().optionalString(None).optionalString("").optionalString("a")
        self.assertEqual(
            packer.packed(), bytes.fromhex("00000000 00000001 00000000 00000001 00000001 61000000")
        )

    def test_fixed(self) -> None:
        """
        Opaque data of fixed length is packed without a length, and padded.
        """
        uuid = bytes(range(16))
        self.assertEqual(Packer().fixed(uuid).packed(), uuid)
        self.assertEqual(Packer().fixed(b"12345").packed(), b"12345\0\0\0")

    def test_chars(self) -> None:
        """
        Each element of a C char array takes four bytes.
        """
        self.assertEqual(Packer().chars(b"a\xc3").packed()[:7], bytes.fromhex("00000061 000000"))
        self.assertEqual(len(Packer().chars(bytes(32)).packed()), 128)
        unpacker = Unpacker(Packer().chars(b"abcdefgh").packed())
        self.assertEqual((unpacker.chars(5), unpacker.chars(3)), (b"abcde", b"fgh"))

    def test_signExtendedChars(self) -> None:
        """
        Elements above 127 are read correctly, whether or not the client has extended the sign, as
        clients on x86 do.
        """
        data = bytes.fromhex("ffffffc3 000000c3 00000061")
        self.assertEqual(Unpacker(data).chars(3), b"\xc3\xc3a")

    def test_paddingIsNotChecked(self) -> None:
        """
        Padding may have any value.
        """
        unpacker = Unpacker(bytes.fromhex("00000001 61ffffff 00000007"))
        self.assertEqual(unpacker.string(), "a")
        self.assertEqual(unpacker.int32(), 7)

    def test_bytesAfterTheLastValue(self) -> None:
        """
        Bytes after the last value are ignored.
        """
        self.assertEqual(Unpacker(b"\0\0\0\5 and so on").uint32(), 5)

    def test_embeddedNUL(self) -> None:
        """
        A NUL in a string is kept.
        """
        self.assertEqual(Unpacker(bytes.fromhex("00000003 61006200")).string(), "a\0b")

    def test_anyNonzeroMeansPresent(self) -> None:
        """
        An optional string is present if the word before it is not 0, as in libvirt.
        """
        self.assertEqual(
            Unpacker(bytes.fromhex("00000002 00000001 61000000")).optionalString(), "a"
        )


class RoundTripTests(SynchronousTestCase):
    """
    Tests for values that are packed and unpacked again.
    """

    @given(INT32, UINT32, UINT64, INT64, st.floats(allow_nan=False))
    def test_numbers(
        self, signed: int, unsigned: int, long: int, longSigned: int, real: float
    ) -> None:
        """
        Numbers survive packing and unpacking, and no bytes are left.
        """
        packer = Packer().int32(signed).uint32(unsigned).uint64(long)
        unpacker = Unpacker(packer.int64(longSigned).double(real).packed())
        self.assertEqual(
            (unpacker.int32(), unpacker.uint32(), unpacker.uint64()), (signed, unsigned, long)
        )
        self.assertEqual((unpacker.int64(), unpacker.double()), (longSigned, real))
        self.assertRaises(XDRError, unpacker.fixed, 1)

    @given(texts(), st.none() | texts())
    def test_strings(self, text: str, maybe: str | None) -> None:
        """
        Strings survive packing and unpacking, even those decoded from invalid UTF-8.
        """
        unpacker = Unpacker(Packer().string(text).optionalString(maybe).packed())
        self.assertEqual(unpacker.string(), text)
        self.assertEqual(unpacker.optionalString(), maybe)

    @given(st.binary(max_size=40))
    def test_bytesInStrings(self, data: bytes) -> None:
        """
        Any bytes of a string survive unpacking and packing.
        """
        packed = Packer().opaque(data).packed()
        self.assertEqual(Packer().string(Unpacker(packed).string()).packed(), packed)

    @given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
    def test_opaqueData(self, first: bytes, second: bytes, third: bytes) -> None:
        """
        Opaque data and char arrays survive packing and unpacking, and take a multiple of four
        bytes.
        """
        data = Packer().opaque(first).fixed(second).chars(third).packed()
        self.assertEqual(len(data) % 4, 0)
        unpacker = Unpacker(data)
        self.assertEqual(unpacker.opaque(), first)
        self.assertEqual(unpacker.fixed(len(second)), second)
        self.assertEqual(unpacker.chars(len(third)), third)
        self.assertRaises(XDRError, unpacker.fixed, 1)

    @given(st.lists(INT32, max_size=20))
    def test_arrays(self, numbers: list[int]) -> None:
        """
        An array is packed as its count and its elements.
        """
        packer, byHand = Packer(), Packer().uint32(len(numbers))
        for number in numbers:
            byHand.int32(number)
        packer.array(numbers, packer.int32, 20)
        self.assertEqual(packer.packed(), byHand.packed())
        unpacker = Unpacker(packer.packed())
        self.assertEqual(unpacker.array(unpacker.int32, 20), numbers)

    @given(st.none() | INT64)
    def test_optional(self, value: int | None) -> None:
        """
        An optional value survives packing and unpacking.
        """
        packer = Packer()
        packer.optional(value, packer.int64)
        unpacker = Unpacker(packer.packed())
        self.assertEqual(unpacker.optional(unpacker.int64), value)
        self.assertRaises(XDRError, unpacker.uint32)

    @given(st.lists(parameters(), max_size=5))
    def test_typedParameters(self, values: list[TypedParameter]) -> None:
        """
        Typed parameters of every type survive packing and unpacking.
        """
        packed = Packer().typedParameters(values).packed()
        self.assertEqual(Unpacker(packed).typedParameters(), values)


class LimitTests(SynchronousTestCase):
    """
    Tests for values that are too large or incomplete.
    """

    def test_numbersThatDoNotFit(self) -> None:
        """
        Numbers just outside their range, and values of other types, raise L{PackError}.
        """
        packer = Packer()
        for pack, value in [
            (packer.int32, 2**31),
            (packer.int32, -(2**31) - 1),
            (packer.uint32, 2**32),
            (packer.uint32, -1),
            (packer.uint64, 2**64),
            (packer.uint64, -1),
            (packer.int64, 2**63),
            (packer.int64, -(2**63) - 1),
            (packer.int32, 1.5),
        ]:
            error = self.assertRaises(PackError, pack, value)
            self.assertIn(repr(value), str(error))
        error = self.assertRaises(PackError, packer.double, 10**400)
        self.assertLess(len(str(error)), 100)
        self.assertEqual(packer.packed(), b"")

    def test_packingLongStrings(self) -> None:
        """
        A string is limited to libvirt's length, in bytes, not characters.
        """
        self.assertEqual(len(Packer().string("x" * STRING_MAX).packed()), 4 + 4194304)
        self.assertRaises(XDRError, Packer().string, "x" * (STRING_MAX + 1))
        self.assertRaises(XDRError, Packer().string, "é" * (STRING_MAX // 2 + 1))

    def test_unpackingLongStrings(self) -> None:
        """
        The limit on a string's length applies to unpacking too, even if the string is complete.
        """
        longest = Packer().uint32(STRING_MAX).packed() + b"x" * STRING_MAX
        self.assertEqual(len(Unpacker(longest).string()), STRING_MAX)
        tooLong = Packer().uint32(STRING_MAX + 1).packed() + b"x" * (STRING_MAX + 4)
        for read in (Unpacker(tooLong).string, Unpacker(tooLong).opaque):
            error = self.assertRaises(XDRError, read)
            self.assertIn("4194305", str(error))

    def test_opaqueLimit(self) -> None:
        """
        A field's own limit applies to packing and unpacking.
        """
        data = Packer().opaque(b"12345", 5).packed()
        self.assertEqual(Unpacker(data).opaque(5), b"12345")
        self.assertEqual(Unpacker(data).string(5), "12345")
        for read in (Unpacker(data).opaque, Unpacker(data).string):
            self.assertRaises(XDRError, read, 4)
        self.assertRaises(PackError, Packer().opaque, b"12345", 4)
        self.assertRaises(PackError, Packer().string, "12345", 4)
        self.assertRaises(PackError, Packer().opaque, bytes(STRING_MAX + 1))

    def test_arrayLimit(self) -> None:
        """
        An array with too many elements raises an error before any element is unpacked.
        """
        unpacker = Unpacker(Packer().uint32(3).int32(1).int32(2).int32(3).packed())
        read: list[int] = []

        def element() -> int:
            read.append(unpacker.int32())
            return read[-1]

        self.assertRaises(XDRError, unpacker.array, element, 2)
        self.assertEqual(read, [])
        packer = Packer()
        self.assertRaises(PackError, packer.array, [1, 2, 3], packer.int32, 2)
        self.assertEqual(ARRAY_MAX, 16384)
        self.assertRaises(PackError, packer.array, [1] * (ARRAY_MAX + 1), packer.int32)
        self.assertEqual(packer.packed(), b"")

    def test_arrayThatIsNotAllThere(self) -> None:
        """
        An array with more elements than the remaining bytes can hold raises an error before any
        element is unpacked.
        """
        unpacker = Unpacker(Packer().uint32(3).int32(1).int32(2).packed() + b"\0\0\0")
        self.assertRaises(XDRError, unpacker.array, lambda: None)

    def test_fieldsThatAreNotAllThere(self) -> None:
        """
        The error for incomplete data, even in its padding, says how many bytes there were.
        """
        for size, read in [
            (3, Unpacker(bytes(3)).int32),
            (0, Unpacker(b"").uint32),
            (7, Unpacker(bytes(7)).uint64),
            (5, Unpacker(b"\0\0\0\1a").opaque),
            (7, Unpacker(b"\0\0\0\1a\0\0").string),
            (4, Unpacker(b"\0\0\0\1").optionalString),
        ]:
            error = self.assertRaises(XDRError, read)
            self.assertIn(f"of {size}", str(error))
        self.assertRaises(XDRError, Unpacker(bytes(7)).chars, 2)
        self.assertRaises(XDRError, Unpacker(bytes(15)).fixed, 16)

    def test_nothingIsReadInVain(self) -> None:
        """
        After an incomplete value a shorter one can still be unpacked.
        """
        unpacker = Unpacker(b"\0\0\0\7")
        self.assertRaises(XDRError, unpacker.uint64)
        self.assertEqual(unpacker.int32(), 7)


class GarbageTests(SynchronousTestCase):
    """
    Tests for arbitrary bytes.
    """

    @given(st.data())
    def test_anyBytes(self, data: st.DataObject) -> None:
        """
        Unpacking arbitrary bytes returns a value or raises L{XDRError}.
        """
        size = data.draw(st.integers(0, 12))
        word = st.sampled_from([0, 1, 2, 5]) | UINT32
        words = data.draw(st.lists(word.map(lambda number: number.to_bytes(4, "big")), max_size=4))
        unpacker = Unpacker(b"".join(words) + data.draw(st.binary(max_size=9)))
        reads: list[Callable[[], object]] = [
            unpacker.int32,
            unpacker.uint32,
            unpacker.uint64,
            unpacker.opaque,
            unpacker.string,
            unpacker.optionalString,
            lambda: unpacker.fixed(size),
            lambda: unpacker.chars(size),
            lambda: unpacker.array(unpacker.optionalString, 20),
        ]
        for read in data.draw(st.lists(st.sampled_from(reads), max_size=8)):
            try:
                read()
            except XDRError as error:
                self.assertIsInstance(error, ValueError)


class SurrogateTests(SynchronousTestCase):
    """
    Tests for strings that cannot be encoded.
    """

    def test_loneSurrogate(self) -> None:
        """
        A lone surrogate that is not from undecodable bytes cannot be packed.
        """
        self.assertRaises(XDRError, Packer().string, "\ud800")
