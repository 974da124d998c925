"""
The location of Redis: the URL of C{--registry}, and the file of the password.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
from OpenSSL.crypto import Error as CryptoError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from kaproto.regularfile import readFile

__all__ = ["CONNECT_TIMEOUT", "BadLocation", "Location", "Password"]

CONNECT_TIMEOUT: Final = 5.0
"""
Seconds to connect.
"""

_PORT: Final = 6379
_FILES: Final = ("ca", "cert", "key", "password-file")
_PASSWORD_MAX: Final = 4096
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class BadLocation(ValueError):
    """
    A URL or a file cannot be used; the message is for the user.
    """


class Password:
    """
    A password from the first line of a file.

    @ivar path: the file; C{None} for no password.
    @ivar text: the password.
    """

    def __init__(self, path: Path | None) -> None:
        """
        @raise BadLocation: when the file cannot be used.
        """
        self.path = path
        self.text: str | None = None
        self.reload()

    def __str__(self) -> str:
        return f"the password in {self.path}"

    def reload(self) -> None:
        """
        Read the file again.

        @raise BadLocation: when it cannot be used; then the password stays the same.
        """
        if self.path is None:
            return
        try:
            text = readFile(self.path).decode("utf-8")
            line = text.partition("\n")[0][:_PASSWORD_MAX].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise BadLocation(f"{self.path}: {reason}") from error
        if not line:
            raise BadLocation(f"{self.path}: its first line, the password, is empty")
        self.text = line


@attrs.frozen
class Location:
    """
    The address of Redis, and how to log in.

    @ivar host: its name or address.
    @ivar port: its TCP port.
    @ivar database: the number of its database.
    @ivar user: the user to log in as; C{None} for Redis's default user.
    @ivar tls: whether to speak TLS (C{rediss:}).
    @ivar files: the files that the URL names: C{ca}, C{cert}, C{key} and C{password-file}.
    """

    host: str
    port: int = _PORT
    database: int = 0
    user: str | None = None
    tls: bool = False
    files: dict[str, Path] = attrs.field(factory=dict)

    def __str__(self) -> str:
        """
        The URL for logs, without secrets.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, url: str) -> Location:
        """
        @param url: C{redis://[USER@]HOST[:PORT][/DATABASE]}, or C{rediss:} for TLS.  Its query
            may have C{password-file=} and, with TLS, C{ca=}, C{cert=} and C{key=}.
        @raise BadLocation: when it is malformed or contains a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadLocation(f"it is not a URL: {error}") from error
        if parts.scheme not in ("redis", "rediss"):
            raise BadLocation("it takes a URL such as redis://HOST:6379/0, or rediss: with TLS")
        if parts.password is not None:
            raise BadLocation(
                "a password in a URL can be read by every user of this machine (ps); put it into "
                "a file, and name that: --registry-password-file=PATH, or ?password-file=PATH"
            )
        if not parts.hostname:
            raise BadLocation("it names no host, as redis://HOST:6379/0 does")
        database = parts.path.strip("/") or "0"
        if not (database.isascii() and database.isdecimal()) or parts.fragment:
            raise BadLocation(
                f"after the host comes the number of a database, such as /0, not {parts.path!r}"
            )
        files = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _FILES or not value:
                raise BadLocation(f"{name}=: there is {'=PATH, '.join(_FILES)}=PATH")
            files[name] = Path(value)
        tls = parts.scheme == "rediss"
        if not tls and files.keys() - {"password-file"}:
            raise BadLocation("ca=, cert= and key= need TLS: write rediss: in place of redis:")
        if ("cert" in files) != ("key" in files):
            raise BadLocation("cert= and key= belong together")
        user = unquote(parts.username) if parts.username else None
        return cls(parts.hostname, port or _PORT, int(database), user, tls, files)

    def password(self, path: Path | None = None) -> Password:
        """
        @param path: the password's file, if the URL does not name it.
        @raise BadLocation: when the file cannot be used.
        """
        return Password(path or self.files.get("password-file"))

    def endpoint(self, reactor: object) -> IStreamClientEndpoint:
        """
        @return: an endpoint that connects to Redis.
        @raise BadLocation: when a file cannot be used.
        """
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            reactor, self.host, self.port, timeout=CONNECT_TIMEOUT
        )
        if not self.tls:
            return endpoint
        ca = self.files.get("ca")
        trust = platformTrust()
        if ca is not None:
            trust = trustRootFromCertificates(_authorities(ca))
        own = None
        if "cert" in self.files:
            own = _pair(self.files["cert"], self.files["key"])
        options = optionsForClientTLS(self.host, trust, own)
        return wrapClientTLS(options, endpoint)


def _read(path: Path) -> bytes:
    try:
        return readFile(path)
    except OSError as error:
        raise BadLocation(f"{path}: {error.strerror}") from error


def _authorities(path: Path) -> list[Certificate]:
    found = [Certificate.loadPEM(each) for each in _PEM.findall(_read(path))]
    if not found:
        raise BadLocation(f"{path} has no certificate (PEM)")
    return found


def _pair(cert: Path, key: Path) -> PrivateCertificate:
    try:
        own: PrivateCertificate = PrivateCertificate.loadPEM(_read(key) + b"\n" + _read(cert))
    except CryptoError as error:
        raise BadLocation(f"{cert} and {key} are not a certificate and its key (PEM)") from error
    return own
