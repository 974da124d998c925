"""
Faults that nobody asks for: bad networks, and processes that are stopped for a while.

Real processes talk to each other in two network namespaces over links that lose, delay and reorder
packets on demand.  The tests are skipped, with the reason, where namespaces or the programs are not
to be had; with C{KAPROTO_REQUIRE_INTEROP=1} in the environment that is a failure.

C{python -m tests.harness.faults} repeats every fault many times and prints what came of it.
"""
