"""
Admission of administrators: root, and the user that the server runs as.
"""

from __future__ import annotations

import os
import pwd

from kaproto.interfaces import Admission, Refused
from kaproto.peer import Peer
from kaproto.policies import Policy

__all__ = ["Operators"]


class Operators(Policy):
    """
    Admits root and the user of this process, identified by the kernel.
    """

    name = "operators"
    description = "root, and the user that the server runs as"

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: the admission, or a refusal that names the users who may administer.
        """
        credentials = peer.unixCredentials
        if credentials is None:
            return Refused("operation forbidden: administration is over a UNIX socket only")
        own = os.geteuid()
        if credentials.uid in (0, own):
            return Admission(rule=f"uid {credentials.uid}")
        others = f" and by {_name(own)}" if own else ""
        return Refused(
            f"operation forbidden: kaserver is administered by root{others}, and you are "
            f"{_name(credentials.uid)}; try sudo"
        )


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
