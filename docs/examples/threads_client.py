"""
Run with C{python threads_client.py URI}: use kaproto in a program with threads
instead of Deferreds.
"""

from __future__ import annotations

import sys
from functools import partial
from threading import Thread

from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread

from kaproto import connect

running = Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
running.start()
wait = partial(blockingCallFromThread, reactor)

connection = wait(connect, reactor, sys.argv[1])
print(wait(connection.hostname))
events = wait(connection.lifecycleEvents)
for domain in wait(connection.listAllDomains):
    wait(domain.suspend)
    wait(domain.resume)
    print(wait(events.next).event.name, wait(events.next).event.name)
wait(connection.close)

reactor.callFromThread(reactor.stop)
running.join()
