"""
Unit tests, without a network and without subprocesses.
"""

from __future__ import annotations

import gc

# A full collection traverses all objects of the imported modules, some 300,000.  Without this line
# a dozen of them would run, each in whatever test happens to be under way; the tests about what is
# freed call gc.collect() themselves.
gc.set_threshold(10_000, 10, 1_000)
