"""
Tests for L{kaproto.program}.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kaproto.interfaces import ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.program import ApplicationBackend, Program, procedure


class Sums(Program):
    """
    A program that answers 1, 2 and 3, and has a method that is no procedure.
    """

    number: ClassVar[int] = 0x20304050

    @procedure(1)
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
        Be nobody's business.
        """
        raise NotImplementedError


class ProgramTests(SynchronousTestCase):
    """
    Programs to subclass.
    """

    def test_procedures(self) -> None:
        """
        The decorated methods answer their numbers, and nothing else is answered.
        """
        program = Sums()
        known = [number for number in range(-1, 10) if program.knows(number)]
        self.assertEqual(known, [1, 2, 3])
        self.assertRaises(KeyError, program.callReceived, None, 4, b"")

    def test_calls(self) -> None:
        """
        A method is given the connection and the payload, and what it returns is the answer, be it
        there already or not.
        """
        program = Sums()
        self.assertEqual(program.callReceived("connection", 1, b"four"), b"4")
        for number in (2, 3):
            answer = program.callReceived("connection", number, b"")
            assert isinstance(answer, Deferred)
            self.assertEqual(self.successResultOf(answer), b"'connection'")

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
        A program that is made from another has its procedures and those of its own; a method that
        it overrides, or a number that it claims anew, is its own; the other is as it was.
        """

        class More(Sums):
            def size(self, connection: object, payload: bytes) -> bytes:
                return b"overridden"

            @procedure(3, 4)
            def another(self, connection: object, payload: bytes) -> bytes:
                return b"another"

        program = More()
        self.assertEqual([program.knows(number) for number in (1, 2, 3, 4)], [True] * 4)
        self.assertEqual(program.callReceived(None, 1, b""), b"overridden")
        self.assertEqual(program.callReceived(None, 3, b""), b"another")
        self.assertEqual(program.callReceived(None, 4, b""), b"another")
        self.assertFalse(Sums().knows(4))
        self.assertEqual(Sums().callReceived(None, 1, b""), b"0")

    def test_twoMethodsForOneNumber(self) -> None:
        """
        Two methods of one program that claim the same number are a mistake, which is found when
        the class is made and names both.
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


class ApplicationBackendTests(SynchronousTestCase):
    """
    The backend of a server that serves only programs of its own.
    """

    def test_opensAnything(self) -> None:
        """
        Whatever name a client opens, there is a session, which is always idle and knows nothing.
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
        It adds no procedures to the remote program.
        """
        self.assertFalse(any(ApplicationBackend().knows(number) for number in range(500)))


class InheritanceTests(SynchronousTestCase):
    """
    Programs made of other programs.
    """

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

        answers = [Both().callReceived(None, number, b"") for number in (1, 2)]
        self.assertEqual(answers, [b"1", b"2"])

    def test_renumbered(self) -> None:
        """
        A method that a subclass gives another number has lost its old one.
        """

        class First(Program):
            @procedure(1)
            def answer(self, connection: object, payload: bytes) -> bytes:
                return b"1"

        class Renumbered(First):
            @procedure(2)
            def answer(self, connection: object, payload: bytes) -> bytes:
                return b"2"

        self.assertEqual([Renumbered().knows(1), Renumbered().knows(2)], [False, True])
