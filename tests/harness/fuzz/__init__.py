"""
Attacks on everything that reads bytes from a peer.

All input must lead to a correct reply, an ignored message, or a close with a reason: no other
exception, no traceback in the log, no object left, and nothing written after the end.

C{python -m tests.harness.fuzz} runs for as long as its options say, and with C{--what streams}
attacks codecs, tunnels and WebSockets.  The state machines, which need no bytes, run longer if
C{KAPROTO_FUZZ_EXAMPLES} is set to the number of examples for each, and then try other examples each
time::

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
    @param examples: the number of examples to try by default.
    @param steps: the most steps of one example.
    """
    wanted = os.environ.get(_EXAMPLES)
    if wanted is None:
        return settings(max_examples=examples, stateful_step_count=steps)
    return settings(max_examples=int(wanted), stateful_step_count=steps, derandomize=False)
