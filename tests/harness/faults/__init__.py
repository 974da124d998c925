"""
Faults without an attacker: bad networks, and processes that stop for a while.

Real processes run in two network namespaces, over links that lose, delay and reorder packets on
demand.  The tests are skipped, with the reason, where namespaces or programs are missing; with
C{KAPROTO_REQUIRE_INTEROP=1} in the environment that is a failure.

C{python -m tests.harness.faults} repeats every fault many times and prints the outcomes.
"""
