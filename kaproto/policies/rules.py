"""
The policy C{rules:FILE}: each peer gets the mode of the first rule that fits it.

The file is TOML: an array of tables C{rule}, and a table C{default} for peers that no rule fits::

    [[rule]]
    network = ["10.0.0.0/8", "fd00::/8"]
    transport = "tls"
    dn = "*,O=Example,CN=backup-*"
    mode = "optional"
    readonly = true

    [[rule]]
    user = "monitoring"
    mode = "mandatory"
    interval = 1
    count = 2

    [default]
    mode = "mandatory"

A rule fits a peer when all of its conditions do (see L{kaproto.policies.conditions}); a condition
with several values fits when one of them does.  C{readonly} opens connections read-only.

A program can give itself any name.  So a rule with the condition C{program} decides about keepalive
only; the first fitting rule without that condition decides whether the connection is read-only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.interfaces import Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies.conditions import CONDITIONS, ConditionError, Conditions
from kaproto.policies.modes import MODES, Policy
from kaproto.regularfile import readFile

__all__ = ["Rule", "Rules", "RulesError", "RulesPolicy", "parseRules"]

_TERMS: Final = ("mode", "interval", "count", "readonly")
_MODE_NAMES: Final = "0, 1, 2, disable, optional or mandatory"
_ANSWERS: Final = {True: True, False: False, "yes": True, "no": False}


class RulesError(ValueError):
    """
    A file of rules cannot be used; the message names the file, the rule and the key.
    """


@attrs.frozen
class Rule:
    """
    One rule: its conditions, and the mode for the peers that fit them.

    @ivar name: its place in the file, such as C{rule 2}.
    @ivar policy: the mode, with its interval and count.
    @ivar conditions: the conditions on a peer.
    @ivar readOnly: whether their connections are read-only.
    """

    name: str
    policy: Policy
    conditions: Conditions
    readOnly: bool = False


@attrs.frozen
class Rules:
    """
    The contents of a file.

    @ivar rules: the rules, in the order in which they are tried.
    @ivar default: the rule for peers that fit none of them.
    """

    rules: Sequence[Rule]
    default: Rule

    def ruleFor(self, peer: Peer) -> Rule:
        """
        @return: the first rule that fits the peer.
        """
        return next((rule for rule in self.rules if rule.conditions.fit(peer)), self.default)

    def isReadOnly(self, peer: Peer) -> bool:
        """
        @return: whether the peer's connection is read-only: the first fitting rule without the
            condition C{program} decides.
        """
        trusted = (rule for rule in self.rules if "program" not in rule.conditions.values)
        return next((rule for rule in trusted if rule.conditions.fit(peer)), self.default).readOnly


def parseRules(text: str, file: str, keepAlive: KeepAlive) -> Rules:
    """
    @param text: the file's content.
    @param file: its name, for errors.
    @param keepAlive: the default interval and count of rules.
    @raise RulesError: when the file cannot be used.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError(f"{file}: {error}") from error
    try:
        return _rules(content, keepAlive)
    except ValueError as error:
        raise RulesError(f"{file}: {error}") from error


def _rules(content: Mapping[str, Any], keepAlive: KeepAlive) -> Rules:
    _checkKeys(content, ("rule", "default"))
    tables = content.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RulesError("rule: write each rule as a table [[rule]]")
    default = content.get("default", {"mode": MODES[0].name})
    if not isinstance(default, dict):
        raise RulesError("default: write the default as a table [default]")
    rules = [
        _rule(f"rule {number}", table, keepAlive, tuple(CONDITIONS))
        for number, table in enumerate(tables, 1)
    ]
    return Rules(rules, _rule("default", default, keepAlive, ()))


def _rule(
    name: str, table: Mapping[str, Any], keepAlive: KeepAlive, conditions: Sequence[str]
) -> Rule:
    try:
        _checkKeys(table, (*conditions, *_TERMS))
        written = {key: _texts(key, table[key]) for key in conditions if key in table}
        return Rule(name, _policy(table, keepAlive), Conditions.parse(written), _readOnly(table))
    except ValueError as error:
        raise RulesError(f"{name}: {error}") from error


def _checkKeys(table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise RulesError(f"{key}: there is no such key; there are {', '.join(known)}")


def _texts(key: str, value: object) -> list[str]:
    values: list[object] = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise ConditionError(f"{key}: a string or a list of strings, not {value!r}")
    return [str(each) for each in values]


def _readOnly(table: Mapping[str, Any]) -> bool:
    if "program" in table and "readonly" in table:
        raise RulesError(
            "readonly: cannot be combined with program, since a program can give itself any name; "
            "put it in a separate rule"
        )
    value = table.get("readonly", False)
    if not isinstance(value, bool | str) or value not in _ANSWERS:
        raise RulesError(f"readonly: true or false, not {value!r}")
    return _ANSWERS[value]


def _policy(table: Mapping[str, Any], keepAlive: KeepAlive) -> Policy:
    if "mode" not in table:
        raise RulesError(f"mode is missing; it is {_MODE_NAMES}")
    terms = keepAlive
    for key in ("interval", "count"):
        if key in table:
            try:
                terms = attrs.evolve(terms, **{key: table[key]})
            except (TypeError, ValueError) as error:
                raise RulesError(f"{key}: {error}") from error
            if not table[key]:
                raise RulesError(f"{key}: 0 pings nobody; use mode disable for that")
    value = table["mode"]
    for number, mode in enumerate(MODES):
        if value in (mode.name, str(number)) or (type(value) is int and value == number):
            return mode.configured(None, terms)
    raise RulesError(f"mode: {_MODE_NAMES}, not {value!r}")


@implementer(IPlugin, IKeepAlivePolicy)
class RulesPolicy:
    """
    Gives each peer the mode of the first rule that fits it.
    """

    name = "rules"
    description = "a mode for each peer, by the rules in a TOML file"
    argumentFormat = "FILE"

    def __init__(self, path: Path | None = None, keepAlive: KeepAlive = KeepAlive()) -> None:
        """
        @param path: the file; without one there are no rules, and every peer gets mode 0.
        @param keepAlive: the default interval and count of rules.
        @raise RulesError: when the file cannot be used.
        """
        self._path = path
        self._keepAlive = keepAlive
        self._rules = Rules((), Rule("default", MODES[0], Conditions({})))
        self.reload()

    def __str__(self) -> str:
        return f"the rules in {self._path}"

    def reload(self) -> None:
        """
        Read the file again.  Open connections do not change.

        @raise RulesError: when the file cannot be used; the previous rules stay in use.
        """
        if self._path is None:
            return
        try:
            text = readFile(self._path).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RulesError(f"{self._path}: cannot be read: {error}") from error
        self._rules = parseRules(text, str(self._path), self._keepAlive)

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> RulesPolicy:
        """
        @param argument: the path of the file.
        @raise ValueError: when there is no argument, or the file cannot be used.
        """
        if not argument:
            raise ValueError("it needs the name of a file, as in rules:/etc/kaproto/rules.toml")
        return RulesPolicy(Path(argument), keepAlive)

    def advertises(self, peer: Peer) -> bool:
        """
        @return: the answer of the peer's mode.
        """
        return self._rules.ruleFor(peer).policy.advertises(peer)

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        @return: the answer of the peer's mode.
        """
        return self._rules.ruleFor(peer).policy.keepAlive(peer)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: the decision of the peer's mode, and whether the connection is read-only.
        """
        rule = self._rules.ruleFor(peer)
        name = f"{rule.name}, mode {rule.policy.name}"
        answer = attrs.evolve(rule.policy.admit(peer), rule=name)
        if isinstance(answer, Admission):
            return attrs.evolve(answer, readOnly=self._rules.isReadOnly(peer))
        return answer
