"""
Tests for kaproto.

Hypothesis runs the same examples every time, so a failure can be reproduced on any machine, fast or
slow.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "kaproto",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kaproto")
