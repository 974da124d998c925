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
    Who may administer.
    """

    def admit(self, uid: int | None) -> Admission | Refused:
        """
        @return: the answer to a user of this machine, or to somebody from elsewhere.
        """
        credentials = None if uid is None else UnixCredentials(1, uid, uid)
        return Operators().admit(Peer(unixCredentials=credentials))

    def test_admitted(self) -> None:
        """
        Root may, and so may the server's own user.
        """
        self.patch(os, "geteuid", lambda: 4242)
        for uid in (0, 4242):
            self.assertEqual(self.admit(uid), Admission(rule=f"uid {uid}"))

    def test_others(self) -> None:
        """
        Others are told who may, by name where there is one, and that they are not.
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
        Nobody administers from elsewhere.
        """
        self.assertIsInstance(self.admit(None), Refused)
