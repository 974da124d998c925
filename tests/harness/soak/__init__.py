"""
A kaserver under thousands of clients for many minutes: who lives stays, who dies is found in time,
and nothing is left of those who have gone.

C{python -m tests.harness.soak --clients 5000 --minutes 20 --interval 2 --count 2} does it and says
what it has seen; its exit status is 0 only if nothing was wrong.  With C{--gateway} the kaserver
stands in front of a libvirtd, under clients that are busy, slow, load much or make many calls, and
others that die.
"""
