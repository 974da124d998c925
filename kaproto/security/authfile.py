"""
Names and passwords out of the file that libvirt's own clients take them from.
"""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path
from typing import Final

import attrs

from kaproto.security.saslclient import Login
from kaproto.uri import isURI, parseURI

__all__ = ["loginFor", "readLogin"]

_LOCAL: Final = "localhost"


def loginFor(uri: str) -> Login | None:
    """
    Find the login that a URI asks for: C{authfile=PATH} names the file to look it up in, and
    C{auth=sasl.MECHANISM} the mechanism.

    @param uri: a URI or a Twisted endpoint string, which asks for none.
    @return: C{None} where there is none.
    @raise ValueError: when the file cannot be used, or the URI.
    """
    if not isURI(uri):
        return None
    parsed = parseURI(uri)
    if parsed.authfile is None:
        return None
    login = readLogin(Path(parsed.authfile), parsed.host or _LOCAL)
    return attrs.evolve(login, mechanism=parsed.mechanism)


def readLogin(path: Path, host: str) -> Login:
    """
    Look up a login.  Section C{auth-libvirt-HOST}, or C{auth-libvirt-default}, names in
    C{credentials} the X of a section C{credentials-X}, which has C{authname} and C{password}.

    @param path: the file.
    @param host: the server.
    @raise ValueError: when there is none; the message tells what is missing, and no secrets.
    """
    file = ConfigParser(interpolation=None, strict=False)
    try:
        file.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    except ConfigError as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise ValueError(f"{path}{where}: not of the form that libvirt's auth.conf has") from None
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
