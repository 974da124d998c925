"""
Tests for L{kaproto.security.pki}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kaproto.security.pki import CertificateFiles, clientFiles, serverFiles


def touch(path: Path) -> Path:
    """
    Create an empty file, and the folders above it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def fill(directory: Path) -> CertificateFiles:
    """
    Create all of a client's files in one folder.
    """
    names = ("cacert.pem", "clientcert.pem", "clientkey.pem", "cacrl.pem")
    ca, certificate, key, crl = (touch(directory / name) for name in names)
    return CertificateFiles(ca, certificate, key, crl, server=False)


class ServerFilesTests(SynchronousTestCase):
    """
    Tests for L{serverFiles}.
    """

    def setUp(self) -> None:
        """
        Choose a folder that does not exist yet.
        """
        self.directory = Path(self.mktemp())

    def test_defaults(self) -> None:
        """
        The default paths are libvirtd's.
        """
        self.assertEqual(
            serverFiles(),
            CertificateFiles(
                Path("/etc/pki/CA/cacert.pem"),
                Path("/etc/pki/libvirt/servercert.pem"),
                Path("/etc/pki/libvirt/private/serverkey.pem"),
                Path("/etc/pki/CA/cacrl.pem") if os.path.exists("/etc/pki/CA/cacrl.pem") else None,
                server=True,
            ),
        )

    def test_crlUnreadable(self) -> None:
        """
        A CRL that exists and cannot be read is not ignored: loading it fails, with the reason.
        """
        crl = self.directory / "CA/cacrl.pem"
        self.assertIsNone(serverFiles(self.directory).crl)
        crl.parent.mkdir(parents=True)
        self.assertIsNone(serverFiles(self.directory).crl)
        crl.symlink_to("elsewhere")
        self.assertEqual(serverFiles(self.directory).crl, crl)

        def forbidden(_path: Path) -> object:
            raise PermissionError

        self.patch(Path, "lstat", forbidden)
        self.assertEqual(serverFiles(self.directory).crl, crl)

    def test_noFolder(self) -> None:
        """
        If the CRL's folder is a file, there is no CRL.
        """
        touch(self.directory / "CA")
        self.assertIsNone(serverFiles(self.directory).crl)

    def test_crl(self) -> None:
        """
        A CRL is used if it exists.
        """
        self.assertIsNone(serverFiles(self.directory).crl)
        crl = touch(self.directory / "CA/cacrl.pem")
        self.assertEqual(serverFiles(self.directory).crl, crl)

    def test_elsewhere(self) -> None:
        """
        Each file's path can be given.
        """
        files = serverFiles(
            self.directory, ca=Path("a"), certificate=Path("b"), key=Path("c"), crl=Path("d")
        )
        self.assertEqual(
            files, CertificateFiles(Path("a"), Path("b"), Path("c"), Path("d"), server=True)
        )


class ClientFilesTests(SynchronousTestCase):
    """
    Tests for L{clientFiles}.
    """

    def setUp(self) -> None:
        """
        Choose folders for a machine and a user.
        """
        self.machine = Path(self.mktemp())
        self.home = Path(self.mktemp())
        self.own = self.home / ".pki/libvirt"

    def find(self) -> CertificateFiles:
        """
        @return: the user's files.
        """
        return clientFiles(directory=self.machine, home=self.home)

    def test_flat(self) -> None:
        """
        C{pkipath} has all files in one folder.
        """
        flat = fill(self.machine)
        self.assertEqual(clientFiles(self.machine), flat)

    def test_flatWithoutCertificate(self) -> None:
        """
        A client's certificate and key are optional.
        """
        ca = touch(self.machine / "cacert.pem")
        self.assertEqual(
            clientFiles(self.machine), CertificateFiles(ca, None, None, None, server=False)
        )

    def test_flatWithoutKey(self) -> None:
        """
        A certificate whose key is missing is not ignored.
        """
        certificate = touch(self.machine / "clientcert.pem")
        files = clientFiles(self.machine)
        self.assertEqual(files.certificate, certificate)
        self.assertEqual(files.key, self.machine / "clientkey.pem")

    def test_machine(self) -> None:
        """
        The machine's files have libvirt's paths.
        """
        ca = touch(self.machine / "CA/cacert.pem")
        crl = touch(self.machine / "CA/cacrl.pem")
        certificate = touch(self.machine / "libvirt/clientcert.pem")
        key = touch(self.machine / "libvirt/private/clientkey.pem")
        self.assertEqual(self.find(), CertificateFiles(ca, certificate, key, crl, server=False))

    def test_user(self) -> None:
        """
        The user's files take precedence over the machine's.
        """
        self.test_machine()
        own = fill(self.own)
        self.assertEqual(self.find(), own)

    def test_halfAUser(self) -> None:
        """
        Each file that the user lacks is taken from the machine; certificate and key go together.
        """
        self.test_machine()
        touch(self.own / "clientcert.pem")
        ca = touch(self.own / "cacert.pem")
        files = self.find()
        self.assertEqual(files.ca, ca)
        self.assertEqual(files.certificate, self.machine / "libvirt/clientcert.pem")
        self.assertEqual(files.crl, self.machine / "CA/cacrl.pem")

    def test_rootHasNone(self) -> None:
        """
        Root uses the machine's files.
        """
        self.patch(os, "geteuid", lambda: 0)
        self.patch(Path, "home", lambda: self.home)
        touch(self.own / "cacert.pem")
        self.assertEqual(clientFiles(directory=self.machine).ca, self.machine / "CA/cacert.pem")

    def test_othersHave(self) -> None:
        """
        Other users have files in their home.
        """
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(Path, "home", lambda: self.home)
        ca = touch(self.own / "cacert.pem")
        self.assertEqual(clientFiles(directory=self.machine).ca, ca)
