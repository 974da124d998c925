"""
Tests for L{kaproto.regularfile}, and for the modules that read files with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kaproto import regularfile
from kaproto.app.config import readConfig
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies.rules import RulesPolicy
from kaproto.registry.location import Location
from kaproto.regularfile import readFile
from kaproto.security.authfile import readLogin
from kaproto.security.certificates import loadKeyMaterial
from kaproto.security.pki import CertificateFiles
from kaproto.security.userfile import readUsers


class ReadTests(SynchronousTestCase):
    """
    Tests for L{readFile}.
    """

    def test_whole(self) -> None:
        """
        A file is read whole, up to a maximum size.
        """
        path = Path(self.mktemp())
        path.write_bytes(b"a\r\n\xff")
        self.assertEqual(readFile(path), b"a\r\n\xff")
        self.patch(regularfile, "FILE_MAX", 3)
        self.assertIn("larger than", str(self.assertRaises(OSError, readFile, path)))
        self.assertRaises(FileNotFoundError, readFile, Path("x"))

    def test_others(self) -> None:
        """
        A folder, a pipe without a writer and an endless device are errors at once, in every module
        that reads files.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        for path, reason in (
            (folder, "s a directory"),
            (pipe, "it is not a regular file"),
            (Path("/dev/zero"), "it is not a regular file"),
        ):
            files = CertificateFiles(ca=path, certificate=None, key=None, crl=None, server=True)
            for read in (
                lambda path=path: readFile(path),
                lambda path=path: readUsers(path, str),
                lambda path=path: readConfig(path),
                lambda path=path: RulesPolicy(path, KeepAlive(5, 5)),
                lambda path=path: readLogin(path, "localhost"),
                lambda path=path: Location("h", files={"password-file": path}).password(),
                lambda files=files: loadKeyMaterial(files),
            ):
                error = self.assertRaises((OSError, ValueError), read)
                self.assertIn(reason, str(error))
                self.assertIn(str(path), str(error))
