"""
Tests for L{kaproto.admin.control} and L{kaproto.admin.client}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from kaproto.admin.controltypes import PAGE_MAX
from kaproto.errors import RemoteError
from kaproto.policies import Mandatory
from tests.support import KEEPALIVE, OPEN
from tests.support_admin import AdminTestCase


class ControlTests(AdminTestCase):
    """
    Tests for the calls of the C{kaproto} command.
    """

    def test_clients(self) -> None:
        """
        All clients are listed, page by page, ordered by id.
        """
        control = self.control()
        self.assertEqual(self.finish(control.clients()), [])
        wires = [self.client() for _ in range(2 * PAGE_MAX + 3)]
        wires[5].lose()
        found = self.finish(control.clients())
        expected = [number for number in range(1, 2 * PAGE_MAX + 4) if number != 6]
        self.assertEqual([each["id"] for each in found], expected)

    def test_client(self) -> None:
        """
        A client is found by its id; an unknown id is an error.
        """
        self.openClient()
        control = self.control()
        (found,) = self.finish(control.client(1))
        self.assertEqual((found["id"], found["phase"]), (1, "open"))
        failed = Deferred.fromCoroutine(control.client(7))
        self.controlled.flush()
        self.assertEqual(self.failureResultOf(failed, RemoteError).value.code, 96)

    def test_disconnect(self) -> None:
        """
        A client can be disconnected with a reason, which is recorded.
        """
        self.openClient()
        control = self.control()
        self.finish(control.disconnect(1, "mainten\nance"))
        self._pairs[0].flush()
        (found,) = self.finish(control.ended())
        self.assertEqual(found["reason"], "disconnected")
        self.assertEqual(
            found["message"], r"an administrator disconnected this client: mainten\nance"
        )

    def test_refused(self) -> None:
        """
        Refused clients are listed.
        """
        self.daemon = self.makeDaemon(Mandatory(KEEPALIVE))
        self.client().feed(OPEN)
        (found,) = self.finish(self.control().refused())
        self.assertEqual((found["host"], found["refused"]), ("192.0.2.1", 1))

    def test_status(self) -> None:
        """
        The status describes the server as a whole.
        """
        self.openClient()
        (found,) = self.finish(self.control().status())
        self.assertEqual((found["server"], found["clients"]), ("kaserver", 1))

    def test_replace(self) -> None:
        """
        Replacing workers is an error in a server without workers.
        """
        replacing = Deferred.fromCoroutine(self.control().replace())
        self.controlled.flush()
        failure = self.failureResultOf(replacing, RemoteError)
        self.assertIn("--workers=", str(failure.value))

    def test_reload(self) -> None:
        """
        A reload returns the problems with files.
        """
        control = self.control()
        self.assertEqual(self.finish(control.reload()), [])
        self.daemon.problems = ["rules.toml: no mode"]
        self.assertEqual(self.finish(control.reload()), ["rules.toml: no mode"])

    def test_drain(self) -> None:
        """
        Draining begins after the reply.
        """
        control = self.control()
        self.finish(control.drain(30))
        self.turns()
        self.assertEqual(self.daemon.calls, [("drain", 30.0)])

    def test_silence(self) -> None:
        """
        A call to a server that does not answer times out.
        """
        control = self.control()
        self.controlled.blackhole()
        asked = Deferred.fromCoroutine(control.status())
        self.advance(11)
        self.failureResultOf(asked, DeferredTimeout)

    def test_close(self) -> None:
        """
        L{ControlClient.close} closes the connection.
        """
        control = self.control()
        self.finish(control.close())
        self.assertFalse(self.controlled.client.isAlive())
