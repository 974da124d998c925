"""
Checks whether settings allow several workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from twisted.python.usage import Options as BaseOptions

from kaproto.app.listeners import innermost

__all__ = ["whyNotShared"]

_SHARED: Final = frozenset({"tcp", "tcp6", "unix", "systemd", "libvirttls"})


def whyNotShared(listeners: Sequence[str], program: BaseOptions | None) -> str | None:
    """
    @param listeners: the endpoint strings to listen on.
    @param program: the options of C{twistd} or C{twist}.
    @return: why these settings do not allow workers; C{None} if they do.
    """
    if sys.platform != "linux":
        return "it needs Linux, where the kernel distributes connections among processes"
    if program is not None and program.get("logger"):
        return "workers cannot use --logger of twistd; leave it out, or use --logfile or --syslog"
    for each in listeners:
        kind = innermost(each).partition(":")[0]
        if kind not in _SHARED:
            return (
                f"--listen={each} cannot be shared by several processes; tcp:, tcp6:, "
                "libvirttls:, unix: and systemd: can, and those around them, such as proxy:"
            )
    return None
