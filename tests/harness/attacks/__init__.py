"""
Slow, greedy and rude peers, servers at their limits and servers that are killed, with honest
clients beside them whose patience is measured.

C{trial tests.harness.attacks} has short forms; C{python -m tests.harness.attacks} has the full
size, and a libvirtd to compare with.
"""
