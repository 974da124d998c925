"""
Merges the settings of the command line, the configuration file and the defaults, and records the
source of each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaproto.app.config import Config, ConfigError, ListenSettings, readConfig, writeConfig
from kaproto.app.kinds import BadSetting, Flag
from kaproto.app.settings import SETTINGS

__all__ = ["Sources"]


class Sources:
    """
    The effective settings and their sources.

    @ivar listen: the listeners; empty if neither the command line nor the file has any.
    """

    def __init__(self) -> None:
        self.listen: Sequence[ListenSettings] = ()
        self._file: str | None = None
        self._sources: dict[str, str] = {}

    def merge(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """
        @param given: the command line's settings, by name; C{None} or 0 for those not given.
        @return: the effective settings.
        @raise ValueError: naming the flag, or the file and the key.
        """
        self._file = given["config"]
        config = self._read()
        values: dict[str, Any] = {}
        for name, setting in SETTINGS.items():
            flag = given.get(name)
            if flag not in (None, 0):
                values[name], source = _value(name, flag), f"--{name}"
            elif name in config.values:
                values[name], source = config.values[name], str(self._file)
            else:
                values[name], source = setting.default, "default"
            self._sources[name] = source
        self.listen = [ListenSettings(each) for each in values["listen"] or ()]
        if not self.listen and config.listen:
            self.listen, self._sources["listen"] = config.listen, str(self._file)
        return values

    def _read(self) -> Config:
        if self._file is None:
            return Config()
        try:
            return readConfig(Path(self._file))
        except ConfigError as error:
            raise ValueError(f"--config={error}") from error

    def locate(self, problem: str) -> str:
        """
        @param problem: a message that begins with a flag.
        @return: the message, beginning with the file and the key if the setting comes from the
            file.
        """
        name = re.match("--([a-z-]+)", problem)
        if self._file is None or name is None or self._sources.get(name[1]) != self._file:
            return problem
        return f"--config={self._file}: {problem.removeprefix('--')}"

    def written(self, config: Config) -> str:
        """
        @param config: the effective settings.
        @return: the text of an equivalent configuration file, with the sources in comments.
        """
        return writeConfig(config, self._sources)


def _value(name: str, given: object) -> object:
    """
    @param given: a text, a list of texts, or 1 for a flag.
    @return: the setting's value.
    """
    kind = SETTINGS[name].kind
    if isinstance(kind, Flag):
        return True
    if not isinstance(given, str):
        return given
    try:
        return kind.fromText(given)
    except BadSetting as error:
        raise ValueError(f"--{name} {error}") from error
