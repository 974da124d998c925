"""
Tests for L{kaproto.program.program}.
"""

from __future__ import annotations

from collections.abc import Awaitable
from enum import IntEnum
from typing import ClassVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kaproto.program import Program, UInt, XDRError, pack, procedure, unpack


class Number(IntEnum):
    """
    The procedures of L{Sums}.
    """

    SIZE = 1


class Sums(Program):
    """
    A program with the procedures 1, 2 and 3, and a method that is no procedure.
    """

    number: ClassVar[int] = 0x20304050

    @procedure(Number.SIZE)
    def size(self, connection: object, payload: bytes) -> bytes:
        """
        Return the payload's length.
        """
        return b"%d" % len(payload)

    @procedure(2, 3)
    def later(self, connection: object, payload: bytes) -> Awaitable[bytes]:
        """
        Return the connection, later.
        """
        return succeed(repr(connection).encode())

    def other(self, connection: object, payload: bytes) -> bytes:
        """
        Never called, since it is no procedure.
        """
        raise NotImplementedError


@attrs.frozen
class Reading:
    """
    The arguments and results of L{Sensors}.
    """

    sensor: str
    value: UInt


class Sensors(Program):
    """
    A program whose procedures take and return Python objects.
    """

    number = 0x20304051

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        vars(self)["latest"] = "an attribute with the name of a procedure"

    @procedure(1, arguments=str, result=Reading)
    def latest(self, connection: object, sensor: str) -> Reading:
        """
        Return a reading.
        """
        return self.readings[sensor]

    @procedure(2, arguments=Reading)
    def store(self, connection: object, reading: Reading) -> None:
        """
        Return nothing.
        """
        self.readings[reading.sensor] = reading

    @procedure(3, result=int)
    async def count(self, connection: object) -> int:
        """
        Take nothing, and return later.
        """
        return len(self.readings)

    @procedure(4, arguments=None)
    def clear(self, connection: object) -> None:
        """
        Take and return nothing.
        """
        self.readings.clear()

    @procedure(5, arguments=Reading)
    async def storeLater(self, connection: object, reading: Reading) -> None:
        """
        Return nothing, later.
        """
        self.store(connection, reading)


class ProgramTestCase(SynchronousTestCase):
    """
    Base class for tests that call programs.
    """

    def call(self, program: Program, number: int, payload: bytes = b"") -> bytes:
        """
        @return: the result, at once or awaited.
        """
        result = program.callReceived("connection", number, payload)
        if isinstance(result, bytes):
            return result
        return self.successResultOf(Deferred.fromCoroutine(awaited(result)))


async def awaited(result: Awaitable[bytes]) -> bytes:
    """
    @return: the result of an awaitable.
    """
    return await result


class ProgramTests(ProgramTestCase):
    """
    Tests for programs whose procedures take and return XDR.
    """

    def test_procedures(self) -> None:
        """
        A program knows the numbers of decorated methods, and no others.
        """
        program = Sums()
        known = [number for number in range(-1, 10) if program.knows(number)]
        self.assertEqual(known, [1, 2, 3])
        self.assertRaises(KeyError, program.callReceived, None, 4, b"")

    def test_calls(self) -> None:
        """
        A method is called with the connection and the payload, and returns the result, at once or
        later.
        """
        self.assertEqual(self.call(Sums(), 1, b"four"), b"4")
        for number in (2, 3):
            self.assertEqual(self.call(Sums(), number), b"'connection'")

    def test_version(self) -> None:
        """
        A program's version is 1 by default, as in all of libvirt's programs.
        """
        self.assertEqual(Sums().version, 1)

    def test_methodsStayMethods(self) -> None:
        """
        A decorated method can be called like any other.
        """
        self.assertEqual(Sums().size(None, b"123"), b"3")

    def test_subclass(self) -> None:
        """
        A subclass inherits procedures.  It can override a method or a number, which does not change
        the base class.
        """

        class More(Sums):
            def size(self, connection: object, payload: bytes) -> bytes:
                return b"overridden"

            @procedure(3, 4)
            def another(self, connection: object, payload: bytes) -> bytes:
                return b"another"

        program = More()
        self.assertEqual([program.knows(number) for number in (1, 2, 3, 4)], [True] * 4)
        answers = [self.call(program, number) for number in (1, 3, 4)]
        self.assertEqual(answers, [b"overridden", b"another", b"another"])
        self.assertFalse(Sums().knows(4))
        self.assertEqual(self.call(Sums(), 1), b"0")

    def test_twoPrograms(self) -> None:
        """
        A program with two base classes has the procedures of both.
        """

        class First(Program):
            @procedure(1)
            def one(self, connection: object, payload: bytes) -> bytes:
                return b"1"

        class Second(Program):
            @procedure(2)
            def two(self, connection: object, payload: bytes) -> bytes:
                return b"2"

        class Both(First, Second):
            number = 7

        self.assertEqual([self.call(Both(), number) for number in (1, 2)], [b"1", b"2"])

    def test_renumbered(self) -> None:
        """
        A method with another number in a subclass loses the old one.
        """

        class Renumbered(Sums):
            @procedure(9)
            def size(self, connection: object, payload: bytes) -> bytes:
                return b"9"

        self.assertEqual([Renumbered().knows(1), Renumbered().knows(9)], [False, True])


class TypedTests(ProgramTestCase):
    """
    Tests for programs whose procedures take and return Python objects.
    """

    def test_calls(self) -> None:
        """
        Arguments are unpacked, and results packed: attrs classes, plain types or nothing, at once
        or later.
        """
        program = Sensors()
        self.assertEqual(self.call(program, 2, pack(Reading("door", 1))), b"")
        self.assertEqual(self.call(program, 5, pack(Reading("roof", 2))), b"")
        answer = self.call(program, 1, pack("door"))
        self.assertEqual(unpack(Reading, answer), Reading("door", 1))
        self.assertEqual(unpack(int, self.call(program, 3)), 2)
        self.assertEqual(self.call(program, 4), b"")
        self.assertEqual(unpack(int, self.call(program, 3)), 0)

    def test_badArguments(self) -> None:
        """
        Arguments that cannot be unpacked raise XDRError, and the method is not called.
        """
        program = Sensors()
        error = self.assertRaises(XDRError, self.call, program, 2, b"\0\0\0\1x")
        self.assertIn("Reading.sensor: ", str(error))
        self.assertEqual(program.readings, {})

    def test_ownErrors(self) -> None:
        """
        A method's exceptions are raised unchanged.
        """
        self.assertRaises(KeyError, self.call, Sensors(), 1, pack("window"))
