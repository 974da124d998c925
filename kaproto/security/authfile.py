"""
A client's authentication, as its URI asks, and libvirt's C{auth.conf}, the file with passwords.
"""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigError
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from kaproto.regularfile import readFile
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.uri import ConnectionURI, isURI, parseURI
from kaproto.wire.programs import AuthType

__all__ = ["authenticationFor", "readLogin"]

_LOCAL: Final = "localhost"


def authenticationFor(uri: str, login: Login | None = None) -> Authentication:
    """
    Read C{auth=} and C{authfile=} of a URI.  The file is read only when the server requires a
    login; otherwise it may be missing.

    @param login: a login to use instead of the file's.
    @raise ValueError: if the URI cannot be used.
    """
    if not isURI(uri):
        return Authentication(login)
    parsed = parseURI(uri)
    wanted = None if parsed.authentication is None else AuthType[parsed.authentication.upper()]
    if login is None and parsed.authfile:
        return Authentication(partial(_login, parsed), wanted)
    if login is not None and login.mechanism is None:
        login = attrs.evolve(login, mechanism=parsed.mechanism)
    return Authentication(login, wanted)


def _login(uri: ConnectionURI) -> Login:
    login = readLogin(Path(uri.authfile or ""), uri.host or _LOCAL)
    return attrs.evolve(login, mechanism=uri.mechanism)


def readLogin(path: Path, host: str) -> Login:
    """
    Look up a login.  C{credentials=X} in section C{auth-libvirt-HOST}, or else
    C{auth-libvirt-default}, names section C{credentials-X}, which has C{authname} and C{password}.

    @param path: the file.
    @param host: the server.
    @raise ValueError: if there is no login for this server, or the file cannot be used.  The
        message says what is missing, and quotes no secret.
    """
    file = ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    try:
        file.read_string(readFile(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    except ConfigError as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise ValueError(
            f"{path}{where}: this is not libvirt's auth.conf, which has [sections] and key=value"
        ) from None
    for section in (f"auth-libvirt-{host}", "auth-libvirt-default"):
        name = file.get(section, "credentials", fallback=None)
        if name is not None:
            break
    else:
        raise ValueError(
            f"{path}: neither [auth-libvirt-{host}] nor [auth-libvirt-default] has credentials="
        )
    section = f"credentials-{name}"
    user = file.get(section, "authname", fallback=None)
    password = file.get(section, "password", fallback=None)
    if user is None or password is None:
        raise ValueError(f"{path}: [{section}] needs authname= and password=")
    return Login(user, password)
