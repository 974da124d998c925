"""
Attacks on everything that reads bytes from a peer.

Whatever comes in ends in a correct reply, an ignored message, or a close with a reason: no other
exception, no traceback in the log, nothing left behind and nothing written after the end.

C{python -m tests.harness.fuzz} goes on for as long as it is told to, and so does C{--what streams},
which attacks codecs, tunnels and web sockets.  The state machines, which
need no bytes, go on for longer when C{KAPROTO_FUZZ_EXAMPLES} says how many examples each is to try,
and then tries others every time::

    KAPROTO_FUZZ_EXAMPLES=3000 python -m twisted.trial tests.harness.fuzz.test_liveness_model \
        tests.harness.fuzz.test_negotiation_model
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

__all__ = ["machineSettings"]

_EXAMPLES: Final = "KAPROTO_FUZZ_EXAMPLES"


def machineSettings(examples: int, steps: int) -> settings:
    """
    @param examples: how many examples to try where nobody wants more.
    @param steps: the most steps of one example.
    """
    wanted = os.environ.get(_EXAMPLES)
    if wanted is None:
        return settings(max_examples=examples, stateful_step_count=steps)
    return settings(max_examples=int(wanted), stateful_step_count=steps, derandomize=False)
