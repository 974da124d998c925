"""
Tests for L{kaproto.wire.structs}.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Annotated, Any
from uuid import UUID

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kaproto.wire.structs import Hyper, Limit, UHyper, UInt, checkType, pack, unpack
from kaproto.wire.xdr import ARRAY_MAX, STRING_MAX, Packer, PackError, TypedParameter, XDRError
from tests.strategies import INT32, INT64, UINT32, UINT64, parameters, texts


class Color(IntEnum):
    """
    An enum with a negative member.
    """

    RED = 1
    GREEN = -2


@attrs.frozen
class Point:
    """
    A struct that is a field of others.
    """

    x: int
    y: float | None = None


@attrs.define(kw_only=True)
class Everything:
    """
    A struct with a field of each type.
    """

    truth: bool
    small: int
    unsigned: UInt
    long: Hyper
    _longer: UHyper
    ratio: float
    text: str
    data: bytes
    uuid: UUID
    color: Color
    point: Point
    points: list[Point]
    perhaps: str | None
    table: list[list[int]]
    parameters: list[TypedParameter]


@attrs.frozen
class Short:
    """
    A struct with its own limits.
    """

    text: Annotated[str, Limit(3)] = ""
    data: Annotated[bytes, Limit(3)] = b""
    numbers: Annotated[list[int], Limit(3)] = attrs.Factory(list)


@attrs.frozen
class Even:
    """
    A struct with a validator.
    """

    number: int = attrs.field()

    @number.validator
    def _check(self, attribute: object, value: int) -> None:
        if value % 2:
            raise ValueError(f"{value} is odd")


@attrs.frozen
class Empty:
    """
    A struct without fields.
    """


points = st.builds(Point, INT32, st.none() | st.floats(allow_nan=False))


class RoundTripTests(SynchronousTestCase):
    """
    Tests for values that are packed and unpacked again.
    """

    @given(
        st.builds(
            Everything,
            truth=st.booleans(),
            small=INT32,
            unsigned=UINT32,
            long=INT64,
            longer=UINT64,
            ratio=st.floats(allow_nan=False),
            text=texts(),
            data=st.binary(max_size=20),
            uuid=st.uuids(),
            color=st.sampled_from(Color),
            point=points,
            points=st.lists(points, max_size=3),
            perhaps=st.none() | texts(),
            table=st.lists(st.lists(INT32, max_size=3), max_size=3),
            parameters=st.lists(parameters(), max_size=3),
        )
    )
    def test_everything(self, value: Everything) -> None:
        """
        A struct with fields of all types, private and keyword-only ones included.
        """
        self.assertEqual(unpack(Everything, pack(value)), value)

    @given(INT32 | st.booleans() | texts() | st.binary(max_size=20) | st.floats(allow_nan=False))
    def test_plain(self, value: object) -> None:
        """
        Values of plain types are packed without a struct.
        """
        self.assertEqual(unpack(type(value), pack(value)), value)

    def test_nan(self) -> None:
        """
        A NaN is unpacked as a NaN.
        """
        self.assertTrue(math.isnan(unpack(float, pack(math.nan))))

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """
        Arbitrary bytes are unpacked or raise L{XDRError}.
        """
        for cls in (Everything, Short, Even, Point):
            try:
                unpack(cls, data)
            except XDRError as error:
                self.assertIn(cls.__name__, str(error))


class WireTests(SynchronousTestCase):
    """
    Tests for the bytes of structs.
    """

    def test_struct(self) -> None:
        """
        A struct is packed as its fields, one after the other.
        """
        by = Packer().uint32(2).int32(1).uint32(0).int32(-1).uint32(1).double(0.5)
        by.fixed(UUID(int=7).bytes).int32(-2).int32(1)
        value = Mixed([Point(1), Point(-1, 0.5)], UUID(int=7), Color.GREEN, flag=True)
        self.assertEqual(pack(value), by.packed())

    def test_trailingBytes(self) -> None:
        """
        Bytes after the struct are ignored, and an empty struct has no bytes.
        """
        self.assertEqual(unpack(Point, pack(Point(1)) + b"more"), Point(1))
        self.assertEqual(pack(Empty()), b"")
        self.assertEqual(unpack(Empty, b""), Empty())


@attrs.frozen
class Mixed:
    """
    A struct with fields of several types.
    """

    points: list[Point]
    uuid: UUID
    color: Color
    flag: bool


class ErrorTests(SynchronousTestCase):
    """
    Tests for invalid values.
    """

    def test_packing(self) -> None:
        """
        A value that cannot be packed raises L{PackError} with the path of its field.
        """
        mixed: Any = Mixed
        point: Any = Point
        for value, message in (
            (Short("abcd"), "Short.text: 4 bytes, but at most 3 are allowed"),
            (Short("éé"), "Short.text: 4 bytes"),
            (Short(data=b"abcd"), "Short.data: 4 bytes, but at most 3 are allowed"),
            (Short(numbers=[1, 2, 3, 4]), "Short.numbers: 4 elements, but at most 3 are"),
            (Point(2**31), "Point.x: 2147483648 does not fit"),
            (point("x" * 999), "Point.x: 'xxx"),
            (point(1, "x"), "Point.y: 'x' does not fit"),
            (mixed(None, None, None, True), "Mixed.points: object of type 'NoneType' has no len"),
            (mixed([Empty()], None, None, True), "is not an instance of Point"),
            (mixed([Point(2**31)], None, None, True), "Mixed.points: Point.x: 2147483648"),
            (mixed([], "x", Color.RED, True), "Mixed.uuid: 'str' object has no attribute"),
            ("x" * (STRING_MAX + 1), "4194305 bytes, but at most 4194304 are allowed"),
        ):
            error = self.assertRaises(PackError, pack, value)
            self.assertIn(message, str(error))
            self.assertLess(len(str(error)), 200)

    def test_unpacking(self) -> None:
        """
        Bytes that cannot be unpacked raise an L{XDRError}, but not a L{PackError}, with the name of
        the field.
        """
        three = Packer().string("abc").opaque(b"abc")
        for cls, payload, message in (
            (Short, Packer().string("abcd").packed(), "Short.text: 4 bytes, but at most 3 are"),
            (
                Short,
                Packer().string("").opaque(b"abcd").packed(),
                "Short.data: 4 bytes, but at most 3",
            ),
            (
                Short,
                three.uint32(4).fixed(bytes(16)).packed(),
                "Short.numbers: 4 elements, but at most 3",
            ),
            (Point, b"\0\0\0\1", "Point.y: 4 bytes wanted at offset 4 of 4"),
            (Even, b"\0\0\0\3", "Even: 3 is odd"),
            (Color, b"\0\0\0\2", "2 is not a valid Color"),
        ):
            error = self.assertRaises(XDRError, unpack, cls, payload)
            self.assertNotIsInstance(error, PackError)
            self.assertIn(message, str(error))

    def test_bugsInTheClass(self) -> None:
        """
        Other exceptions from a struct's constructor are not blamed on the peer.
        """

        def fail(self: object) -> None:
            raise TypeError("a bug")

        cls = attrs.make_class("Buggy", [], class_body={"__attrs_post_init__": fail})
        self.assertRaises(TypeError, unpack, cls, b"")

    def test_defaultLimits(self) -> None:
        """
        Without its own limit a list has libvirt's, for packing and unpacking.
        """
        most = Everyone([Point(1)] * ARRAY_MAX)
        self.assertEqual(unpack(Everyone, pack(most)), most)
        self.assertRaises(PackError, pack, Everyone([Point(1)] * (ARRAY_MAX + 1)))
        payload = Packer().uint32(ARRAY_MAX + 1).packed() + bytes(8 * ARRAY_MAX + 8)
        self.assertRaises(XDRError, unpack, Everyone, payload)


@attrs.frozen
class Everyone:
    """
    A struct with a list that has no limit of its own.
    """

    points: list[Point]


class TypeErrorTests(SynchronousTestCase):
    """
    Tests for classes that cannot be packed, which L{checkType} finds without an instance.
    """

    def test_classes(self) -> None:
        """
        The error names the class and the field, and gives the reason.
        """
        hints: tuple[tuple[Any, str], ...] = (
            (
                object,
                "Bad.field: object has no XDR form; use an attrs class, str, bytes, bool, int",
            ),
            (complex, "Bad.field: complex has no XDR form"),
            (dict[str, str], "Bad.field: dict[str, str] has no XDR form"),
            (int | str, "Bad.field: int | str: XDR does not encode which of several types"),
            (int | str | None, "XDR does not encode which"),
            (list[Empty], "Bad.field: list[Empty]: the elements would have no bytes"),
            (list[complex], "Bad.field: complex has no XDR form"),
            (Annotated[int, Limit(3)], "Bad.field: a Limit is for str, bytes and list, not for"),
            ("Missing", "Bad: name 'Missing' is not defined; define the types of its fields"),
            (None, "Bad.field: None has no XDR form"),
        )
        for hint, message in hints:
            cls = attrs.make_class("Bad", {"field": attrs.field(type=hint)})
            error = self.assertRaises(TypeError, checkType, cls)
            self.assertTrue(str(error).startswith(("Bad.field: ", "Bad: ")), error)
            self.assertIn(message, str(error))

    def test_notForReading(self) -> None:
        """
        A field that the constructor does not take cannot be unpacked.
        """
        cls = attrs.make_class("Bad", {"field": attrs.field(type=int, init=False)})
        error = self.assertRaises(TypeError, checkType, cls)
        self.assertIn("Bad.field: a field with init=False", str(error))

    def test_recursive(self) -> None:
        """
        A struct that contains itself is refused, because the peer would choose the depth of the
        recursion.
        """
        error = self.assertRaises(TypeError, checkType, Chain)
        self.assertIn("Chain.next: Chain contains itself", str(error))

    def test_good(self) -> None:
        """
        Other classes are valid, even with annotations that XDR does not use.
        """
        hints: tuple[Any, ...] = (
            Annotated[int, "a remark"],
            Annotated[UInt, "a remark"],
            Empty,
            Color,
            str,
        )
        for hint in hints:
            checkType(attrs.make_class("Good", {"field": attrs.field(type=hint)}))
        checkType(Everything)


@attrs.frozen
class Chain:
    """
    A struct that contains itself.
    """

    next: Chain | None
