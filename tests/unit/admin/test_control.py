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
    What C{kaproto} asks.
    """

    def test_clients(self) -> None:
        """
        All clients are listed, page by page, in the order of their ids.
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
        One client is shown, or said to be unknown.
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
        A client is disconnected for a reason that is kept.
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
        Who was refused is listed.
        """
        self.daemon = self.makeDaemon(Mandatory(KEEPALIVE))
        self.client().feed(OPEN)
        (found,) = self.finish(self.control().refused())
        self.assertEqual((found["host"], found["refused"]), ("192.0.2.1", 1))

    def test_status(self) -> None:
        """
        The daemon as a whole.
        """
        self.openClient()
        (found,) = self.finish(self.control().status())
        self.assertEqual((found["server"], found["clients"]), ("kaserver", 1))

    def test_replace(self) -> None:
        """
        One process has no workers to replace.
        """
        replacing = Deferred.fromCoroutine(self.control().replace())
        self.controlled.flush()
        failure = self.failureResultOf(replacing, RemoteError)
        self.assertIn("--workers=", str(failure.value))

    def test_reload(self) -> None:
        """
        Reloading tells what is wrong.
        """
        control = self.control()
        self.assertEqual(self.finish(control.reload()), [])
        self.daemon.problems = ["rules.toml: no mode"]
        self.assertEqual(self.finish(control.reload()), ["rules.toml: no mode"])

    def test_drain(self) -> None:
        """
        Draining begins after it was answered.
        """
        control = self.control()
        self.finish(control.drain(30))
        self.turns()
        self.assertEqual(self.daemon.calls, [("drain", 30.0)])

    def test_silence(self) -> None:
        """
        A server that does not answer is not waited for without end.
        """
        control = self.control()
        self.controlled.blackhole()
        asked = Deferred.fromCoroutine(control.status())
        self.advance(11)
        self.failureResultOf(asked, DeferredTimeout)

    def test_close(self) -> None:
        """
        The connection is closed when it is no longer needed.
        """
        control = self.control()
        self.finish(control.close())
        self.assertFalse(self.controlled.client.isAlive())
