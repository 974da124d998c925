"""
Tests that compare how libvirt's own client and kaproto's read URIs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.interop.programs import Program
from tests.interop.support import PYTHON, InteropTestCase
from tests.interop.uris import world
from tests.interop.uris.table import DIFFERENCES, URIS, USER_URIS
from tests.pki import Authority, distinguished

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMED = ["host", "UPPER", "localhost", "six", "system"]
NAMED += ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9"]
"""
The names in the server's certificate.
"""


class URITests(InteropTestCase):
    """
    Tests for the same URIs with both clients, each in its own namespaces.
    """

    tools = ("python3-libvirt", "unshare")
    timeout = 240

    async def tryWith(self, uris: list[str], client: str, user: int) -> dict[str, list[Any]]:
        """
        Try URIs with a client.

        @return: for each URI what the server saw, and the client's error.
        """
        directory = self.privateDirectory()
        authority = Authority()
        server = authority.issue(distinguished("server"), hosts=NAMED)
        for name, content in (
            ("cacert", authority.certificatePEM),
            ("servercert", server.certificatePEM),
            ("serverkey", server.keyPEM),
        ):
            with open(f"{directory}/{name}.pem", "wb") as file:
                file.write(content)
        with open(f"{directory}/uris", "w", encoding="utf-8") as file:
            file.write("\n".join(uris))
        python = PYTHON if client == "realclient" else sys.executable
        namespaces = "unshare --user --map-root-user --net --mount"
        command = f'{namespaces} "$0" "$@" <{directory}/uris'
        arguments = [python, world.__file__, directory, client, str(user)]
        environment = {**os.environ, "PYTHONPATH": ROOT, "LC_ALL": "C.UTF-8"}
        program = Program.start(
            self, ["/bin/sh", "-c", command, *arguments], environment, directory
        )
        result = await program.finish(timeout=100)
        self.assertEqual(result.exitCode, 0, result.errors)
        lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("[")]
        tried = {uri: [opened, error] for uri, opened, error in lines}
        self.assertEqual(list(tried), uris)
        return tried

    async def compare(self, uris: list[str], user: int) -> tuple[list[str], set[str]]:
        """
        Try URIs with both clients.

        @return: a description of each difference, and the URIs that differ.
        """
        real = await self.tryWith(uris, "realclient", user)
        own = await self.tryWith(uris, "ownclient", user)
        differing = {uri for uri in uris if real[uri][0] != own[uri][0]}
        for uri in uris:
            self.assertNotIn("DeadlineMissed", own[uri][1] or "", uri)
            # Either it opened something or it has an error. libvirt's client may have opened a
            # local driver.
            self.assertEqual(bool(own[uri][0]), own[uri][1] is None, [uri, own[uri]])
        lines = [f"{uri}\n  libvirt {real[uri]}\n  kaproto {own[uri]}" for uri in sorted(differing)]
        return lines, differing

    async def test_root(self) -> None:
        """
        Both clients open the same names at the same addresses, or both open nothing, except for the
        intended L{DIFFERENCES}.
        """
        self.assertGreater(len(set(URIS)), 350)
        uris = sorted({*URIS, *(f"ro {uri}" for uri in URIS if uri.startswith("qemu:"))})
        lines, differing = await self.compare(uris, 0)
        self.assertEqual(differing, set(DIFFERENCES), "\n".join(["", *lines]))

    async def test_user(self) -> None:
        """
        Both clients agree for a user who is not root, and whose session URIs mean that user's own
        daemon.
        """
        uris = USER_URIS + [f"ro {uri}" for uri in USER_URIS]
        lines, differing = await self.compare(uris, 1000)
        self.assertEqual(differing, set(), "\n".join(["", *lines]))
