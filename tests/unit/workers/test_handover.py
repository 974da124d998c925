"""
Tests for L{kaproto.workers.handover}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.workers.handover import Handover


class HandoverTests(SynchronousTestCase):
    """
    Tests for the data that a worker gets from its parent.
    """

    def test_passedOn(self) -> None:
        """
        A worker reads the data that its parent has written.
        """
        handover = Handover(
            settings='mode = "2"\n',
            worker=1,
            workers=2,
            row=0,
            rows=4,
            room=100,
            counts=3,
            books=7,
            channel=4,
            sockets={"tcp 1 ": [5, 6]},
            passed=0,
            passedNames="",
            reactor="twisted.internet.epollreactor",
            sampled=True,
            log={"form": "text"},
        )
        self.assertEqual(Handover.read(handover.write()), handover)
