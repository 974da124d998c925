"""
Tests for L{kaproto.program}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kaproto.interfaces import ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import ApplicationBackend, Program, UInt, XDRError, pack, procedure, unpack


class Number(IntEnum):
    """
    The procedures of L{Sums} by name.
    """

    SIZE = 1


class Sums(Program):
    """
    A program that answers 1, 2 and 3, and has a method that is no procedure.
    """

    number: ClassVar[int] = 0x20304050

    @procedure(Number.SIZE)
    def size(self, connection: object, payload: bytes) -> bytes:
        """
        Say how long the payload was.
        """
        return b"%d" % len(payload)

    @procedure(2, 3)
    def later(self, connection: object, payload: bytes) -> Awaitable[bytes]:
        """
        Say later who asked.
        """
        return succeed(repr(connection).encode())

    def other(self, connection: object, payload: bytes) -> bytes:
        """
        Be no procedure.
        """
        raise NotImplementedError


@attrs.frozen
class Reading:
    """
    Arguments and results of L{Sensors}.
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
    Calls programs.
    """

    def call(self, program: Program, number: int, payload: bytes = b"") -> bytes:
        """
        @return: the answer, whether it comes at once or is awaited.
        """
        result = program.callReceived("connection", number, payload)
        if isinstance(result, bytes):
            return result
        return self.successResultOf(Deferred.fromCoroutine(_awaited(result)))


async def _awaited(result: Awaitable[bytes]) -> bytes:
    return await result


class ProgramTests(ProgramTestCase):
    """
    Programs whose procedures take and return XDR.
    """

    def test_procedures(self) -> None:
        """
        Decorated methods answer their numbers, and no other numbers are answered.
        """
        program = Sums()
        known = [number for number in range(-1, 10) if program.knows(number)]
        self.assertEqual(known, [1, 2, 3])
        self.assertRaises(KeyError, program.callReceived, None, 4, b"")

    def test_calls(self) -> None:
        """
        A method is called with the connection and the payload, and returns the answer, now or
        later.
        """
        self.assertEqual(self.call(Sums(), 1, b"four"), b"4")
        for number in (2, 3):
            self.assertEqual(self.call(Sums(), number), b"'connection'")

    def test_version(self) -> None:
        """
        A program is in version 1, as all of libvirt's are, unless it says otherwise.
        """
        self.assertEqual(Sums().version, 1)

    def test_methodsStayMethods(self) -> None:
        """
        A decorated method can be called as any other.
        """
        self.assertEqual(Sums().size(None, b"123"), b"3")

    def test_subclass(self) -> None:
        """
        A subclass has the procedures of its base. It can override a method or a number, and the
        base stays as it was.
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
        A program that inherits from two has the procedures of both.
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
        A method to which a subclass gives another number loses the old one.
        """

        class Renumbered(Sums):
            @procedure(9)
            def size(self, connection: object, payload: bytes) -> bytes:
                return b"9"

        self.assertEqual([Renumbered().knows(1), Renumbered().knows(9)], [False, True])


class TypedTests(ProgramTestCase):
    """
    Programs whose procedures take and return Python objects.
    """

    def test_calls(self) -> None:
        """
        Arguments arrive unpacked, and results are packed: attrs classes, plain types or nothing,
        now or later.
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
        Arguments that cannot be unpacked are an XDRError, and the method is not called.
        """
        program = Sensors()
        error = self.assertRaises(XDRError, self.call, program, 2, b"\0\0\0\1x")
        self.assertIn("Reading.sensor: ", str(error))
        self.assertEqual(program.readings, {})

    def test_ownErrors(self) -> None:
        """
        Exceptions of a method are passed on unchanged.
        """
        self.assertRaises(KeyError, self.call, Sensors(), 1, pack("window"))


def _define(method: Callable[..., Any], decorator: Callable[[Any], Any], name: str) -> Program:
    """
    @return: an instance of a program with one procedure.
    """
    method.__qualname__ = f"Broken.{name}"
    members = {"number": 7, name: decorator(method)}
    program: Program = type("Broken", (Program,), members)()
    return program


class EarlyErrorTests(ProgramTestCase):
    """
    A program that cannot work is an error when its class is made, which names the class and the
    procedure.
    """

    def test_declarations(self) -> None:
        """
        Numbers, names, classes and signatures that cannot be used.
        """

        def good(self: object, connection: object, payload: bytes) -> bytes:
            raise NotImplementedError

        def short(self: object, connection: object) -> bytes:
            raise NotImplementedError

        def text(self: object, connection: object, payload: bytes) -> str:
            raise NotImplementedError

        def nothing(self: object, connection: object, payload: bytes) -> None:
            raise NotImplementedError

        untyped: Any = procedure
        for method, decorator, name, message in (
            (good, untyped, "latest", "Broken.latest: a procedure needs a number: write @proc"),
            (good, untyped(0), "latest", "Broken.latest: a procedure's number is a whole number"),
            (good, untyped(2**31), "latest", "from 1 to 2147483647, not 2147483648"),
            (good, untyped("1"), "latest", "not '1'"),
            (good, untyped(1, 2.5), "latest", "not 2.5"),
            (good, untyped(True), "latest", "not True"),
            (good, untyped(1), "version", "Broken.version: a procedure cannot have the name"),
            (good, untyped(1), "number", "Broken.number: a procedure cannot have the name"),
            (good, untyped(1), "knows", "Broken.knows: a procedure cannot have the name"),
            (good, untyped(1), "callReceived", "Broken.callReceived: a procedure cannot have"),
            (short, untyped(1), "latest", "Broken.latest: it is called with (self, connection, pa"),
            (good, untyped(1, arguments=None), "latest", "it is called with (self, connection):"),
            (short, untyped(1, arguments=str), "latest", "(self, connection, arguments):"),
            (text, untyped(1), "latest", "Broken.latest: it returns str, and should return bytes"),
            (nothing, untyped(1), "latest", "Broken.latest: it returns None, and should return"),
            (good, untyped(1, arguments=dict), "latest", "Broken.latest: dict has no XDR; use an"),
            (good, untyped(1, arguments=str, result=object), "latest", "object has no XDR"),
        ):
            error = self.assertRaises(TypeError, _define, method, decorator, name)
            self.assertIn(message, str(error))

    def test_notMethods(self) -> None:
        """
        Static methods, class methods and properties are not called with the program.
        """

        def method(self: object, connection: object, payload: bytes) -> bytes:
            raise NotImplementedError

        decorate: Any = procedure(1)
        kinds: tuple[Any, ...] = (staticmethod, classmethod, property)
        for kind in kinds:
            error = self.assertRaises(TypeError, decorate, kind(method))
            self.assertIn(f"a procedure is a plain method, not a {kind.__name__}", str(error))

    def test_postponedAnnotations(self) -> None:
        """
        A return annotation may be a string.
        """
        for annotation in (None, "None", str, "str"):

            def method(self: object, connection: object, payload: bytes) -> bytes:
                raise NotImplementedError

            method.__annotations__["return"] = annotation
            error = self.assertRaises(TypeError, _define, method, procedure(1), "latest")
            self.assertIn("should return bytes, the result in XDR; or declare", str(error))

    def test_withoutNumbers(self) -> None:
        """
        A procedure needs a number, and a class of programs to be used as well; one to inherit
        from does not.
        """
        self.assertIn("@procedure(1)", str(self.assertRaises(TypeError, procedure)))

        class Forgetful(Program):
            @procedure(1)
            def one(self, connection: object, payload: bytes) -> bytes:
                raise NotImplementedError

        error = self.assertRaises(TypeError, Forgetful)
        self.assertIn("Forgetful has no number: choose one", str(error))

    def test_numbers(self) -> None:
        """
        A program's number and version have 32 bits, and the keepalive program is libvirt's.
        """
        for name, value, message in (
            ("number", "feed", "Bad.number: a whole number of up to 32 bits, not 'feed'"),
            ("number", 2**32, "Bad.number: a whole number of up to 32 bits, not 4294967296"),
            ("number", -1, "Bad.number: "),
            ("version", None, "Bad.version: "),
            ("number", 0x6B656570, "Bad.number: 0x6b656570 is libvirt's keepalive program"),
        ):
            error = self.assertRaises(TypeError, type, "Bad", (Program,), {name: value})
            self.assertIn(message, str(error))

    def test_largestNumbers(self) -> None:
        """
        A procedure's number has 31 bits, and a program's 32.
        """

        class Last(Program):
            number = 0xFFFFFFFF

            @procedure(0x7FFFFFFF)
            def last(self, connection: object, payload: bytes) -> bytes:
                return b"last"

        self.assertEqual(self.call(Last(), 2**31 - 1), b"last")

    def test_twoMethodsForOneNumber(self) -> None:
        """
        Two methods of one program that claim the same number are named both.
        """

        def define() -> None:
            class Torn(Program):
                @procedure(1)
                def first(self, connection: object, payload: bytes) -> bytes:
                    raise NotImplementedError

                @procedure(2, 1)
                def second(self, connection: object, payload: bytes) -> bytes:
                    raise NotImplementedError

        error = self.assertRaises(TypeError, define)
        self.assertEqual(str(error), "Torn: procedure 1 is both first and second")


class ResultTests(ProgramTestCase):
    """
    A method that returns something else than it should, now or later, is an error that names it.
    """

    def returning(self, value: object, *, later: bool, **types: Any) -> Program:
        """
        @return: a program whose procedure 1 returns a value.
        """

        def method(self: object, connection: object, payload: bytes = b"") -> Any:
            return succeed(value) if later else value

        untyped: Any = procedure
        return _define(method, untyped(1, **types), "latest")

    def test_results(self) -> None:
        """
        Raw results must be bytes; others must be of the declared class, and fit.
        """
        for value, types, message in (
            (None, {}, "returned None: it should return bytes, the result in XDR"),
            ("text", {}, "returned 'text': it should return bytes, the result in XDR"),
            (bytearray(4), {}, "it should return bytes, the result in XDR"),
            (b"1", {"arguments": None}, "returned b'1': it is declared to have no result"),
            ("x" * 999, {"result": int}, "xxx': its result is declared as int"),
            (None, {"result": Reading}, "returned None: its result is declared as Reading"),
            (Reading("a", -1), {"result": Reading}, "Reading.value: -1 does not fit"),
            (2**31, {"result": int}, "2147483648 does not fit"),
        ):
            for later in (False, True):
                program = self.returning(value, later=later, **types)
                result: object = None
                try:
                    result = program.callReceived(None, 1, b"")
                except TypeError as error:
                    problem: BaseException = error
                else:
                    assert isinstance(result, Awaitable)
                    call = Deferred.fromCoroutine(_awaited(result))
                    problem = self.failureResultOf(call, TypeError).value
                self.assertEqual(result is None, not later)
                self.assertIn(message, str(problem))
                self.assertTrue(
                    str(problem).startswith("Broken.latest (procedure 1) returned "), problem
                )
                self.assertLess(len(str(problem)), 200)


class ApplicationBackendTests(SynchronousTestCase):
    """
    The backend of a server that serves only programs of its own.
    """

    def test_opensAnything(self) -> None:
        """
        Any name opens a session, which is always idle and answers nothing.
        """
        backend = ApplicationBackend()
        for name in ("", "test:///default", "anything"):
            session = backend.open(Peer(), OpenRequest(name, 0))
            self.assertTrue(ISession.providedBy(session))
            session.opened(None)
            self.assertTrue(session.idle)
            self.assertRaises(KeyError, session.callReceived, 59, b"")
            session.closed(Exception("over"))

    def test_knowsNothing(self) -> None:
        """
        It adds no procedures and no features to the remote program.
        """
        self.assertFalse(any(ApplicationBackend().knows(number) for number in range(500)))
        self.assertEqual(ApplicationBackend().features, frozenset())
