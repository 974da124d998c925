"""
What can be shared by workers, and what cannot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from twisted.python.usage import Options as BaseOptions

from kaproto.app.listeners import innermost

__all__ = ["whyNotShared"]

_SHARED: Final = frozenset({"tcp", "tcp6", "unix", "systemd", "libvirttls"})


def whyNotShared(
    listeners: Sequence[str], program: BaseOptions | None, registry: str | None
) -> str | None:
    """
    @param listeners: the endpoint strings of the places to listen at.
    @param program: the options of C{twistd} or C{twist}.
    @param registry: the registry that clients are listed in, if there is one.
    @return: why there can be no workers; C{None} if there can.
    """
    if sys.platform != "linux":
        return "it needs Linux, where the kernel divides connections among processes"
    if program is not None and program.get("logger"):
        return "workers cannot use --logger of twistd; leave it out, or use --logfile or --syslog"
    if registry is not None:
        return (
            "workers cannot list their clients in a --registry yet; run several kaservers with a "
            "--node each, or leave one of the two out"
        )
    for each in listeners:
        kind = innermost(each).partition(":")[0]
        if kind not in _SHARED:
            return (
                f"--listen={each} cannot be shared by several processes; tcp:, tcp6:, "
                "libvirttls:, unix: and systemd: can, and those around them, such as proxy:"
            )
    return None
