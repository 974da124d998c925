"""
The configuration file: TOML, with the names of the command line's flags.

An example::

    mode = "mandatory"
    upstream = "qemu:///system"

    [[listen]]
    endpoint = "libvirttls:16514"
    auth = "scram:/etc/kaproto/users"

    [[listen]]
    endpoint = "unix:/run/kaserver/libvirt-sock:group=libvirt"
    auth = []
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from kaproto.app.kinds import BadSetting, Text, Texts
from kaproto.app.settings import SETTINGS
from kaproto.regularfile import readFile

__all__ = ["Config", "ConfigError", "ListenSettings", "readConfig", "writeConfig"]


class ConfigError(ValueError):
    """
    The configuration file is invalid; the message names the file, the key and the valid values.
    """


@attrs.frozen
class ListenSettings:
    """
    The settings of one listener.

    @ivar endpoint: a server endpoint string.
    @ivar auth: the values of C{--auth} for its clients; C{None} for the common setting, an empty
        list for no authentication.
    @ivar tlsAllowedDNs: the distinguished names allowed in client certificates; C{None} for the
        common setting, an empty list for any name.
    """

    endpoint: str
    auth: Sequence[str] | None = None
    tlsAllowedDNs: Sequence[str] | None = None


@attrs.frozen
class Config:
    """
    The contents of a configuration file.

    @ivar values: the settings, by name.
    @ivar listen: the listeners.
    """

    values: Mapping[str, object] = attrs.Factory(dict)
    listen: Sequence[ListenSettings] = ()


_LISTEN_KEYS: Final = ("endpoint", "auth", "tls-allowed-dn")


def readConfig(path: Path) -> Config:
    """
    @raise ConfigError: when the file cannot be read or is invalid.
    """
    try:
        document = tomllib.loads(readFile(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    try:
        listen = [_listenSettings(each) for each in _tables(document.pop("listen", []))]
        return Config({name: _value(name, value) for name, value in document.items()}, listen)
    except BadSetting as error:
        raise ConfigError(f"{path}: {error}") from error


def _value(name: str, value: object) -> object:
    setting = SETTINGS.get(name)
    if setting is None or not setting.inFile:
        allowed = [each.name for each in SETTINGS.values() if each.inFile]
        raise BadSetting(f"there is no key {name!r}{_guess(name, allowed)}")
    try:
        return setting.kind.fromValue(value)
    except BadSetting as error:
        raise BadSetting(f"{name} {error}") from error


def _guess(name: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.replace("_", "-"), allowed, 1)
    return f"; is {close[0]} meant?" if close else f"; there are {', '.join(allowed)}"


def _tables(value: object) -> Iterable[Mapping[str, object]]:
    tables: Sequence[object] = value if isinstance(value, list) else [value]
    for each in tables:
        if not isinstance(each, dict):
            raise BadSetting(
                'listen takes tables, each as in: [[listen]] endpoint = "libvirttls:16514"'
            )
        yield each


def _listenSettings(table: Mapping[str, object]) -> ListenSettings:
    for name in table:
        if name not in _LISTEN_KEYS:
            raise BadSetting(f"[[listen]] has no key {name!r}{_guess(name, _LISTEN_KEYS)}")
    if "endpoint" not in table:
        raise BadSetting('[[listen]] needs a key endpoint, such as endpoint = "libvirttls:16514"')

    def take(name: str, kind: Text | Texts) -> Any:  # noqa: ANN401 - the kind says it
        try:
            return kind.fromValue(table[name]) if name in table else None
        except BadSetting as error:
            raise BadSetting(f"[[listen]] {name} {error}") from error

    return ListenSettings(
        take("endpoint", Text()), take("auth", Texts()), take("tls-allowed-dn", Texts())
    )


def writeConfig(config: Config, origins: Mapping[str, str]) -> str:
    """
    @param origins: the source of each setting, by name.
    @return: the text of an equivalent configuration file, with the sources in comments.
    """
    lines = [
        f"{name} = {_toml(value)}".ljust(40) + f"  # {origins[name]}"
        for name, value in config.values.items()
    ]
    for each in config.listen:
        lines += ["", "[[listen]]", f"endpoint = {_toml(each.endpoint)}"]
        if each.auth is not None:
            lines.append(f"auth = {_toml(list(each.auth))}")
        if each.tlsAllowedDNs is not None:
            lines.append(f"tls-allowed-dn = {_toml(list(each.tlsAllowedDNs))}")
    return "".join(f"{line}\n" for line in lines)


def _toml(value: object) -> str:
    # TOML and JSON share the syntax of strings, numbers, lists of strings, true and false.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
