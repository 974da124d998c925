"""
Tests for L{kaproto.admin.operators}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from kaproto.admin.operators import Operators
from kaproto.interfaces import Admission, Refused
from kaproto.peer import Peer, UnixCredentials


class OperatorsTests(SynchronousTestCase):
    """
    Tests for authorizing administrators.
    """

    def admit(self, uid: int | None) -> Admission | Refused:
        """
        @return: the decision for a local user, or for a peer without a user id.
        """
        credentials = None if uid is None else UnixCredentials(1, uid, uid)
        return Operators().admit(Peer(unixCredentials=credentials))

    def test_admitted(self) -> None:
        """
        Root and the server's own user may administer it.
        """
        self.patch(os, "geteuid", lambda: 4242)
        for uid in (0, 4242):
            self.assertEqual(self.admit(uid), Admission(rule=f"uid {uid}"))

    def test_others(self) -> None:
        """
        Other users are refused; the message names their user id, and says who may administer the
        server.
        """
        for own, who in [(0, "root"), (3999998, "root and by uid 3999998")]:
            self.patch(os, "geteuid", lambda own=own: own)
            answer = self.admit(3999999)
            assert isinstance(answer, Refused)
            self.assertEqual(
                answer.message,
                f"operation forbidden: kaserver is administered by {who}, and you are "
                "uid 3999999; try sudo",
            )

    def test_network(self) -> None:
        """
        A peer without a user id is refused.
        """
        self.assertIsInstance(self.admit(None), Refused)
