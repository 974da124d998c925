"""
Tests for L{kaproto.cli.certificates}.
"""

from __future__ import annotations

import os
import shlex
import ssl
from pathlib import Path

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kaproto.cli.certificates import Certificates, makeCertificates
from kaproto.cli.command import CommandFailed
from kaproto.client import endpointFor
from kaproto.security.pki import serverFiles


def contents(folder: Path) -> dict[str, bytes]:
    """
    @return: the contents of the files in a folder, by relative path.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class CertificatesTests(SynchronousTestCase):
    """
    Tests for the C{certificates} command.
    """

    def setUp(self) -> None:
        """
        Choose a folder that does not exist yet.
        """
        self.folder = Path(self.mktemp()) / "trial:1"

    def make(self, *arguments: str) -> list[str]:
        """
        Run the command.

        @return: the lines it prints.
        """
        command = Certificates()
        lines: list[str] = []
        command.write = lines.append
        command.parseOptions([*arguments, str(self.folder)])
        running = Deferred.fromCoroutine(command.run(MemoryReactorClock()))
        self.assertEqual(self.successResultOf(running), 0)
        return lines

    def test_layout(self) -> None:
        """
        The folder has the layout of libvirt's C{/etc/pki}, and each client has a folder for
        C{pkipath}.  Private keys are readable only by their owner.
        """
        self.make("--client=alice", "--client=bob")
        pairs = ["clientcert.pem", "clientkey.pem"]
        self.assertEqual(
            sorted(contents(self.folder)),
            sorted(
                [
                    *("CA/cacert.pem", "CA/private/cakey.pem"),
                    *("libvirt/servercert.pem", "libvirt/private/serverkey.pem"),
                    *("libvirt/clientcert.pem", "libvirt/private/clientkey.pem"),
                    *(f"clients/alice/{name}" for name in ["cacert.pem", *pairs]),
                    *(f"clients/bob/{name}" for name in ["cacert.pem", *pairs]),
                ]
            ),
        )
        for path in self.folder.rglob("*key.pem"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)
            self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700, path)
        files = serverFiles(self.folder)
        assert files.certificate is not None
        assert files.key is not None
        ssl.create_default_context(cafile=files.ca).load_cert_chain(files.certificate, files.key)

    def test_next(self) -> None:
        """
        The printed commands have the folder's path, quoted for endpoint, URI and shell.
        """
        *_made, blank, _server, serve, _client, list_ = self.make("--host=2001:db8::7")
        self.assertEqual(blank, "")
        path = str(self.folder.absolute())
        quotedPath = path.replace(":", "\\:")
        self.assertEqual(
            shlex.split(serve)[-1], f"--listen=libvirttls:16514:pki={quotedPath}", serve
        )
        uri = shlex.split(list_)[2]
        self.assertIn("test+tls://[2001:db8::7]/default?pkipath=", uri)
        endpointFor(MemoryReactorClock(), uri)

    def test_again(self) -> None:
        """
        Existing files are not overwritten: a second call adds the new clients, and reports what it
        kept.
        """
        self.make("--host=one.example", "--client=alice")
        before = contents(self.folder)
        lines = self.make("--host=two.example", "--client=alice", "--client=bob")
        kept, added = (
            [line for line in lines if line.startswith(word)] for word in ("kept", "made")
        )
        self.assertEqual((len(kept), len(added)), (3, 1))
        self.assertTrue(kept[1].endswith("servercert.pem: for one.example"), kept)
        after = contents(self.folder)
        self.assertEqual({**after, **before}, after)
        self.assertEqual(len(after) - len(before), 3)
        authority, bob = (
            x509.load_pem_x509_certificate(after[name])
            for name in ("CA/cacert.pem", "clients/bob/clientcert.pem")
        )
        bob.verify_directly_issued_by(authority)

    def test_local(self) -> None:
        """
        Without C{--host} the certificate is for the local host's names and addresses.
        """
        (line,) = (line for line in self.make() if "servercert.pem" in line)
        self.assertIn(": for localhost, 127.0.0.1, ::1", line)

    def test_longHost(self) -> None:
        """
        A host name that is too long for a common name becomes only an alternative name.
        """
        host = f"{'a' * 60}.example"
        list(makeCertificates(self.folder, [host]))
        certificate = x509.load_pem_x509_certificate(
            (self.folder / "libvirt/servercert.pem").read_bytes()
        )
        self.assertEqual(certificate.subject.rfc4514_string(), "CN=server")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(names.value.get_values_for_type(x509.DNSName), [host])

    def test_mistakes(self) -> None:
        """
        Invalid host and client names are refused with the flag and the value.
        """
        for argument in [
            *("--host=", "--host=a..b", "--host=a b", "--host=h/x", "--host=" + "a." * 127 + "b"),
            *("--client=", "--client=../x", "--client=.x", "--client=a\nb", "--client=" + "x" * 65),
        ]:
            flag, _equals, value = argument.partition("=")
            error = self.assertRaises(UsageError, self.make, argument)
            self.assertIn(flag, str(error))
            self.assertIn(repr(value), str(error))
        self.assertFalse(self.folder.exists())

    def fails(self, words: str) -> None:
        """
        Check that the command fails with these words, and changes nothing.
        """
        before = contents(self.folder)
        command = Certificates()
        command.parseOptions([str(self.folder)])
        ignored: list[str] = []
        command.write = ignored.append
        failed = self.failureResultOf(
            Deferred.fromCoroutine(command.run(MemoryReactorClock())), CommandFailed
        )
        self.assertIn(words, str(failed.value))
        self.assertEqual(contents(self.folder), before)

    def test_half(self) -> None:
        """
        An authority's certificate without its key, as in a production C{/etc/pki}, is refused.
        """
        self.make()
        os.remove(self.folder / "CA/private/cakey.pem")
        self.fails("cacert.pem is there without")

    def test_notOurs(self) -> None:
        """
        A certificate and a key that do not match are refused.
        """
        self.make()
        key = self.folder / "CA/private/cakey.pem"
        key.write_bytes((self.folder / "libvirt/private/serverkey.pem").read_bytes())
        self.fails("the key does not belong to the certificate")

    def test_notAFolder(self) -> None:
        """
        A file in place of the folder is refused with its path.
        """
        self.folder.parent.mkdir()
        self.folder.write_text("x")
        self.fails(str(self.folder))
