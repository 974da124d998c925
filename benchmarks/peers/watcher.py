"""
Watches a kaserver as Prometheus and a browser do: C{python -m benchmarks.peers.watcher SOCKET}.

The page is loaded and kept open, so that the server sends it updates every two seconds.  The
metrics are read every five seconds.
"""

from __future__ import annotations

import socket
import sys
import time

SCRAPE = 5.0
"""
Seconds between two reads of the metrics; Prometheus's default is 60.
"""


def connect(path: str, target: str) -> socket.socket:
    """
    @return: a connection on which a request was sent.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    return connection


def read(path: str, target: str) -> None:
    """
    Request a page, and read all of it.

    @raise RuntimeError: when the server does not answer with 200.
    """
    with connect(path, target) as connection:
        status = connection.recv(65536)
        if b" 200 " not in status.partition(b"\r\n")[0]:
            raise RuntimeError(f"{target}: {status[:80]!r}")
        while connection.recv(65536):
            pass


def main(path: str) -> None:
    """
    Watch until the server ends or this process is stopped.
    """
    read(path, "/")
    page = connect(path, "/events")
    due = time.monotonic()
    while True:
        page.settimeout(max(0.01, due - time.monotonic()))
        try:
            if not page.recv(65536):
                return
        except TimeoutError:
            pass
        if time.monotonic() >= due:
            read(path, "/metrics")
            due += SCRAPE


if __name__ == "__main__":
    main(sys.argv[1])
