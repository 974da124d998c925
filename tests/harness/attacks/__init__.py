"""
Slow, greedy and hostile peers, servers at their limits and servers that are killed, with
measurements of honest clients meanwhile.

C{trial tests.harness.attacks} runs short forms; C{python -m tests.harness.attacks} runs the full
sizes, and compares with libvirtd.
"""
