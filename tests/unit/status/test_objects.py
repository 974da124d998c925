"""
Tests for L{kaproto.status.objects}.
"""

from __future__ import annotations

import json
import os

from kaproto import __version__
from kaproto.policies import Mandatory
from kaproto.status.clients import clientStatus
from kaproto.status.objects import clientObject, endingObject, refusalObject, statusObject
from tests.support import FEATURE_KEEPALIVE, KEEPALIVE, OPEN
from tests.support_admin import AdminTestCase


class ObjectsTests(AdminTestCase):
    """
    Tests for objects that become JSON.
    """

    def setUp(self) -> None:
        """
        Create a server whose clock starts at 2025-11-26T02:54:37Z.
        """
        super().setUp()
        self.setTimeOfDay(1764125677)

    def test_client(self) -> None:
        """
        A client's object has the same keys, open or not.
        """
        wire = self.client()
        self.clock.advance(3)
        early = clientObject(clientStatus(self.server, self.connectionOf(wire)))
        opened = clientObject(clientStatus(self.server, self.openClient()))
        self.assertEqual(list(early), list(opened))
        json.dumps([early, opened])
        self.assertEqual(early["since"], "2025-11-26T02:54:37Z")
        self.assertEqual(
            (early["id"], early["address"], early["host"]), (1, "192.0.2.1:54321", "192.0.2.1")
        )
        self.assertEqual((early["opened"], early["keepalive_asked"]), (None, False))
        self.assertEqual((opened["opened"], opened["keepalive_asked"]), ("", True))
        self.assertEqual((opened["keepalive_interval"], opened["keepalive_count"]), (1, 2))

    def test_ending(self) -> None:
        """
        An ended connection has a reason code and a message.
        """
        wire = self.client()
        self.clock.advance(1.25)
        wire.lose()
        (ending,) = self.server.journal.endings
        found = endingObject(ending, self.server.journal.wallClock)
        self.assertEqual(found["ended"], "2025-11-26T02:54:38Z")
        self.assertEqual((found["duration_s"], found["reason"]), (1.25, "closed"))
        self.assertEqual(found["message"], "the peer closed the connection")

    def test_refusal(self) -> None:
        """
        Refusals of the same client are summed.
        """
        for _ in range(2):
            self.client().feed(OPEN)
        (refusal,) = self.server.journal.refusals
        found = refusalObject(refusal, self.server.journal.wallClock)
        self.assertEqual(
            found,
            {
                "user": None,
                "dn": None,
                "host": "192.0.2.1",
                "uid": None,
                "program": None,
                "refused": 0,
                "would_refuse": 2,
                "last": "2025-11-26T02:54:37Z",
            },
        )

    def test_status(self) -> None:
        """
        The status describes the whole server, before anything has happened and after.
        """
        self.daemon = self.makeDaemon(Mandatory(KEEPALIVE))
        found = statusObject(self.daemon)
        self.assertEqual((found["clients"], found["ended"], found["round_trips"]), (0, {}, 0))
        self.assertEqual((found["version"], found["pid"]), (__version__, os.getpid()))
        self.assertIsNone(found["round_trip_avg_us"])
        self.client().feed(FEATURE_KEEPALIVE, OPEN)
        self.client().feed(OPEN)
        self.client().lose()
        self.server.roundTrips.add(0.003)
        gateway = self.daemon.becomeGateway()
        gateway.health.failed("libvirtd is away")
        found = statusObject(self.daemon)
        self.assertEqual(found["clients_by_phase"], {"open": 1, "closing": 1})
        self.assertEqual((found["accepted"], found["opened"], found["refused"]), (3, 1, 1))
        self.assertEqual((found["ended"], found["round_trip_avg_us"]), ({"closed": 1}, 3000))
        self.assertEqual((found["ready"], found["problem"]), (False, "libvirtd is away"))
        self.daemon.draining = True
        self.assertEqual(statusObject(self.daemon)["problem"], "draining")
        gateway.health.close()
