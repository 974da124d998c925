"""
Tests for L{kaproto.program.procedures}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from kaproto.program import Program, procedure
from tests.unit.program.test_program import ProgramTestCase, Reading, awaited


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
    Tests for programs that are invalid: defining the class raises an error that names the class and
    the procedure.
    """

    def test_declarations(self) -> None:
        """
        Invalid numbers, names, classes and signatures are refused.
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
            (
                good,
                untyped(1, arguments=dict),
                "latest",
                "Broken.latest: dict has no XDR form; use an",
            ),
            (good, untyped(1, arguments=str, result=object), "latest", "object has no XDR form"),
        ):
            error = self.assertRaises(TypeError, _define, method, decorator, name)
            self.assertIn(message, str(error))

    def test_notMethods(self) -> None:
        """
        Static methods, class methods and properties cannot be procedures.
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
        A procedure needs a number, and so does a program, unless it is only a base class.
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
        A program's number and version have 32 bits, and the number of libvirt's keepalive program
        is refused.
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
        A procedure's number has at most 31 bits, and a program's at most 32.
        """

        class Last(Program):
            number = 0xFFFFFFFF

            @procedure(0x7FFFFFFF)
            def last(self, connection: object, payload: bytes) -> bytes:
                return b"last"

        self.assertEqual(self.call(Last(), 2**31 - 1), b"last")

    def test_twoMethodsForOneNumber(self) -> None:
        """
        The error for two methods with the same number names both.
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
    Tests for methods that return something other than their declared result, at once or later,
    which is an error that names the method.
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
        Raw results must be bytes; others must be instances of the declared class, and fit into its
        XDR.
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
                    call = Deferred.fromCoroutine(awaited(result))
                    problem = self.failureResultOf(call, TypeError).value
                self.assertEqual(result is None, not later)
                self.assertIn(message, str(problem))
                self.assertTrue(
                    str(problem).startswith("Broken.latest (procedure 1) returned "), problem
                )
                self.assertLess(len(str(problem)), 200)
