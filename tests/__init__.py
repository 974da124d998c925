"""
Tests for kaproto.

Hypothesis runs the same examples every time, so that what is red is red for everybody.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile(
    "kaproto", deadline=None, derandomize=True, database=None, max_examples=60
)
settings.load_profile("kaproto")
