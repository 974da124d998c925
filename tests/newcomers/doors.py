"""
The ways of newcomers, from a checkout and its virtual environment to what they came for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

from tests.newcomers.walk import Running, Walk

__all__ = ["DOORS", "INSTALL", "TOOLS", "TUTORIAL", "certificates"]

TUTORIAL: Final = "tutorial.rst"
INSTALL: Final = "python3 -m venv"
"""
How the tutorial's command begins that installs kaproto.
"""


def administrator(walk: Walk) -> None:
    """
    An administrator sees a client listed, one dropped and one refused.
    """
    server = _serve(walk)
    walk.run(TUTORIAL, "virsh -c test+tcp://127.0.0.1/default list")
    client = walk.start(TUTORIAL, "virsh -c test+tcp://127.0.0.1/default")
    walk.run(TUTORIAL, ".venv/bin/kaproto --socket=admin.sock list")
    # Another virsh may be newer.
    walk.replaced["pkill -STOP -n virsh"] = f"kill -STOP {client.pid}"
    walk.run(TUTORIAL, "pkill -STOP")
    walk.logged(server, TUTORIAL, "tcp 127.0.0.1:35318 is dead")
    walk.run(TUTORIAL, ".venv/bin/kaproto --socket=admin.sock ended")
    walk.run(TUTORIAL, "/usr/bin/python3 -c")


def developer(walk: Walk) -> None:
    """
    The developer of an application has a program that answers, and sends events.
    """
    port = _freePort()
    server, client = (
        f".venv/bin/python docs/examples/feed_{end}.py" for end in ("server", "client")
    )
    walk.replaced |= {
        server: f"{server} tcp:{port}:interface=127.0.0.1",
        client: f"{client} tcp:127.0.0.1:{port}",
    }
    walk.start("howto/server.rst", server)
    walk.start("howto/server.rst", client)


def author(walk: Walk) -> None:
    """
    The author of a client calls a host, and sees what happens to its domains.
    """
    _serve(walk)
    walk.replaced["vm"] = socket.gethostname()
    walk.run(TUTORIAL, ".venv/bin/python docs/examples/client.py")
    walk.run("howto/client.rst", ".venv/bin/python docs/examples/domains.py")


DOORS: Final[Mapping[str, Callable[[Walk], None]]] = {
    each.__name__: each for each in (administrator, developer, author)
}
"""
The ways by name.
"""

TOOLS: Final[Mapping[str, tuple[str, ...]]] = {"administrator": ("virsh", "python3-libvirt")}
"""
What a way takes that kaproto does not bring, by L{tests.interop.support.missingTools}' names.
"""


def certificates(walk: Walk) -> None:
    """
    An administrator tries TLS.
    """
    page, port = "howto/authentication.rst", _freePort()
    walk.replaced |= {
        "libvirttls:16514": f"libvirttls:{port}:interface=127.0.0.1",
        "test+tls://localhost/": f"test+tls://localhost:{port}/",
        "vm": socket.gethostname(),
    }
    walk.run(page, "kaproto certificates trial --client=alice")
    walk.start(page, "twistd -n kaserver --mode=2 --listen=libvirttls:16514:pki=trial")
    walk.run(page, "virsh -c 'test+tls://localhost/default?pkipath=trial/clients/alice' list")
    walk.run(page, "kaproto certificates trial --client=bob")
    walk.run(page, "virsh -c 'test+tls://localhost/default?pkipath=trial/clients/bob' hostname")


def _serve(walk: Walk) -> Running:
    """
    Start the tutorial's kaserver, on a port that is free.
    """
    port = _freePort()
    walk.replaced |= {
        "127.0.0.1/default": f"127.0.0.1:{port}/default",
        "--mode=2": f"--mode=2 --listen=tcp:{port}:interface=127.0.0.1",
    }
    return walk.start(TUTORIAL, ".venv/bin/twistd -n kaserver")


def _freePort() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port
