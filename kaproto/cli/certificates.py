"""
C{kaproto certificates}: an authority, and certificates for a server and its clients.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from socket import gethostname
from typing import Final
from urllib.parse import quote

from cryptography import x509
from twisted.internet.interfaces import IReactorTime
from twisted.python.usage import UsageError

from kaproto.cli.authority import Identity, issue, loadIdentity, newAuthority
from kaproto.cli.command import Command, CommandFailed, ExitCode
from kaproto.endpointstring import unparsed

__all__ = ["Certificates", "makeCertificates"]

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_LONGEST: Final = 64  # of a common name: X.520, ub-common-name
_HOST: Final = re.compile(r"(?=.{1,253}$)(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.|$))+")
_CLIENT: Final = re.compile(rf"[\w@+-][\w@+. -]{{0,{_LONGEST - 1}}}")
_AUTHORITY: Final = ("CA/cacert.pem", "CA/private/cakey.pem")
_SERVER: Final = ("libvirt/servercert.pem", "libvirt/private/serverkey.pem")
_OWN: Final = ("libvirt/clientcert.pem", "libvirt/private/clientkey.pem")


class Certificates(Command):
    """
    Make certificates for a trial of TLS.
    """

    synopsis = "[options] DIRECTORY"
    longdesc = (
        "DIRECTORY gets the layout of a server's /etc/pki, and its clients/NAME is the folder for "
        "?pkipath= in a client's URI. Existing files are kept, so later calls can add clients. "
        "Certificates are valid for a year. The authority's key is stored there too, which is "
        "fine for a trial but not for production."
    )

    def __init__(self) -> None:
        super().__init__()
        self["hosts"] = []
        self["clients"] = []

    def opt_host(self, name: str) -> None:
        """
        A name or address of the server, instead of this machine's. May be repeated.
        """
        if not _isHost(name):
            raise UsageError(f"--host takes a host name or an address, not {name!r}")
        self["hosts"].append(name)

    def opt_client(self, name: str) -> None:
        """
        The name of a client, instead of "client". May be repeated.
        """
        if not _CLIENT.fullmatch(name):
            raise UsageError(
                f"--client takes a name of at most {_LONGEST} letters, digits and any of _@+-, "
                f"and after the first also dots and spaces, not {name!r}"
            )
        self["clients"].append(name)

    def parseArgs(self, directory: str) -> None:  # type: ignore[override]
        """
        Take the folder.
        """
        self["directory"] = Path(directory)

    async def run(self, reactor: IReactorTime) -> int:
        """
        Make the files, and print the commands to run next.

        @raise CommandFailed: when files cannot be written, or existing ones cannot be used.
        """
        folder = self["directory"]
        clients = self["clients"] or ["client"]
        try:
            for line in makeCertificates(folder, self["hosts"] or _localNames(), clients):
                self.write(line)
            hosts = _hostsOf(folder)
        except (OSError, ValueError) as error:
            raise CommandFailed(f"{folder}: {error}") from error
        self.write("")
        for line in _nextCommands(folder.absolute(), hosts[0], clients):
            self.write(line)
        return ExitCode.OK


def makeCertificates(
    folder: Path, hosts: Sequence[str], clients: Sequence[str] = ()
) -> Iterator[str]:
    """
    Make the files of a server and its clients that do not exist yet.

    Both layouts are libvirt's own: C{folder} has the layout of C{/etc/pki}, with the first client's
    certificate too, and C{folder/clients/NAME} that of a C{pkipath} folder.

    @param hosts: the server's names and addresses.
    @param clients: the clients' names.
    @return: an iterator over lines of output; it makes each certificate when it yields its line.
    @raise FileExistsError: when one file of a pair exists without the other.
    @raise ValueError: when the existing files are not an authority.
    """
    authority = _load(folder, _AUTHORITY)
    if authority is None:
        authority = newAuthority("kaproto trial CA")
        yield _store(folder, _AUTHORITY, authority, "the authority")
    else:
        yield f"kept  {folder / _AUTHORITY[0]}: the authority"
    if _load(folder, _SERVER) is None:
        name = hosts[0] if len(hosts[0]) <= _LONGEST else "server"
        server = issue(authority, name, hosts)
        yield _store(folder, _SERVER, server, f"for {', '.join(hosts)}")
    else:
        yield f"kept  {folder / _SERVER[0]}: for {', '.join(_hostsOf(folder))}"
    for name in clients:
        own = folder / "clients" / name
        pair = ("clientcert.pem", "clientkey.pem")
        client = _load(own, pair)
        if client is None:
            client = issue(authority, name)
            _write(own / "cacert.pem", authority.certificatePEM, secret=True)
            yield _store(own, pair, client, f"for {name}")
        else:
            yield f"kept  {own / pair[0]}: for {name}"
        if _load(folder, _OWN) is None:
            yield _store(folder, _OWN, client, f"for {name}, as a client on this machine")


def _load(folder: Path, names: tuple[str, str]) -> Identity | None:
    """
    @return: the certificate and its key; C{None} if neither of the two files exists.
    """
    paths = [folder / name for name in names]
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    if len(there) == 1:
        (missing,) = set(paths) - set(there)
        raise FileExistsError(f"{there[0]} is there without {missing}: choose another DIRECTORY")
    return loadIdentity(*(path.read_bytes() for path in paths))


def _store(folder: Path, names: tuple[str, str], identity: Identity, what: str) -> str:
    certificate, key = (folder / name for name in names)
    _write(key, identity.keyPEM, secret=True)
    _write(certificate, identity.certificatePEM)
    return f"made  {certificate} and {key}: {what}"


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """
    Write a new file.

    @param secret: whether only the owner may read the file and enter its folder.
    """
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700 if secret else 0o777, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _isHost(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return _HOST.fullmatch(name) is not None
    return True


def _localNames() -> list[str]:
    return [*_LOCAL, *({gethostname()} - set(_LOCAL))]


def _hostsOf(folder: Path) -> list[str]:
    """
    @return: the names and addresses in the server's certificate.
    """
    certificate = x509.load_pem_x509_certificate((folder / _SERVER[0]).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in names]


def _nextCommands(folder: Path, host: str, clients: Iterable[str]) -> Iterator[str]:
    listen = unparsed(["libvirttls", "16514"], {"pki": str(folder)})
    yield "The server:"
    yield f"  twistd -n kaserver --mode=2 {shlex.quote(f'--listen={listen}')}"
    for name in clients:
        own = folder / "clients" / name
        uri = f"test+tls://{_inURI(host)}/default?pkipath={quote(str(own))}"
        yield f"{name}, here or on a machine that has a copy of {own}:"
        yield f"  virsh -c {shlex.quote(uri)} list"


def _inURI(host: str) -> str:
    try:
        return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    except ValueError:
        return host
