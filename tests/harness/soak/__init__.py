"""
A kaserver with thousands of clients for many minutes: live clients stay connected, dead ones are
detected in time, and nothing leaks.

C{python -m tests.harness.soak --clients 5000 --minutes 20 --interval 2 --count 2} runs it and
prints what it has seen; its exit status is 0 only if nothing was wrong.  With C{--gateway} the
kaserver is in front of a libvirtd, with clients that are busy, slow, transfer much or make many
calls, and others that die.
"""
