"""
The policy C{rules:FILE}: which mode a peer gets depends on who it is.

The file is TOML, an array of tables C{rule}, of which the first that fits a peer counts, and a
table C{default} for those whom none fits::

    [[rule]]
    network = ["10.0.0.0/8", "fd00::/8"]
    transport = "tls"
    dn = "*,O=Example,CN=backup-*"
    mode = "optional"

    [[rule]]
    user = "monitoring"
    mode = "mandatory"
    interval = 1
    count = 2

    [default]
    mode = "mandatory"

A rule fits a peer when all of its conditions do: C{network} the peer's IP address, C{dn} the
distinguished name in its certificate, C{user} the name it authenticated as, C{transport} how it
is connected.  Where a condition has several values, one has to fit.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from kaproto.interfaces import Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import MODES, Policy
from kaproto.security.dn import matchesGlob

__all__ = ["Rule", "Rules", "RulesError", "RulesPolicy", "parseRules"]

_TRANSPORTS: Final = ("tcp", "tls", "unix")
_CONDITIONS: Final = ("network", "transport", "dn", "user")
_TERMS: Final = ("mode", "interval", "count")
_Network = IPv4Network | IPv6Network


class RulesError(ValueError):
    """
    A file of rules cannot be used; the message names the file, the line and the key.
    """


@attrs.frozen
class Rule:
    """
    Conditions, and what is done with a peer that they fit.

    @ivar policy: the mode, with its interval and count.
    @ivar networks: C{None} for no such condition, as in the others.
    @ivar transports: out of C{"tcp"}, C{"tls"} and C{"unix"}.
    @ivar dns: patterns, see L{matchesGlob}.
    @ivar users: patterns as well.
    """

    policy: Policy
    networks: Sequence[_Network] | None = None
    transports: Sequence[str] | None = None
    dns: Sequence[str] | None = None
    users: Sequence[str] | None = None

    def fits(self, peer: Peer) -> bool:
        """
        @return: whether all conditions fit the peer.
        """
        return (
            (self.transports is None or peer.transport in self.transports)
            and (self.networks is None or _isWithin(peer.host, self.networks))
            and (self.dns is None or _matchesAny(peer.tlsDN, self.dns))
            and (self.users is None or _matchesAny(peer.user, self.users))
        )


def _isWithin(host: str | None, networks: Sequence[_Network]) -> bool:
    if host is None:
        return False
    address = ipaddress.ip_address(host.partition("%")[0])
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in networks)


def _matchesAny(text: str | None, patterns: Sequence[str]) -> bool:
    return text is not None and any(matchesGlob(text, pattern) for pattern in patterns)


@attrs.frozen
class Rules:
    """
    What a file says.

    @ivar rules: in the order in which they count.
    @ivar default: for peers that none of them fits.
    """

    rules: Sequence[Rule]
    default: Policy

    def policyFor(self, peer: Peer) -> Policy:
        """
        @return: what the first rule that fits the peer says.
        """
        return self.decide(peer)[1]

    def decide(self, peer: Peer) -> tuple[str, Policy]:
        """
        @return: the first rule that fits the peer, named by its place in the file, and what it
            says.
        """
        for number, rule in enumerate(self.rules, 1):
            if rule.fits(peer):
                return f"rule {number}", rule.policy
        return "default", self.default


class _Place:
    """
    A table in the file, and where it is: tomllib does not say of a value where it was.
    """

    def __init__(self, file: str, text: str, name: str, ordinal: int = 0) -> None:
        """
        @param name: C{""} for what is in front of all tables.
        @param ordinal: which one of the tables of that name.
        """
        self._file = file
        self._text = text
        self._name = name
        self._ordinal = ordinal

    def error(self, key: str | None, problem: str) -> RulesError:
        """
        @param key: the key that is wrong, or C{None} for the table as a whole.
        """
        line = self._line(key)
        where = "" if line is None else f", line {line}"
        named = "" if key is None else f"{key}: "
        return RulesError(f"{self._file}{where}: {named}{problem}")

    def _line(self, key: str | None) -> int | None:
        """
        @return: the line of the key, or at least of the table.
        """
        within = not self._name
        seen = -1
        found: int | None = None
        for number, line in enumerate(self._text.splitlines(), 1):
            header = _HEADER.match(line)
            if header is not None:
                seen += header[1] == self._name
                within = header[1] == self._name and seen == self._ordinal
                if within:
                    found = number
            elif within and key is not None and (match := _KEY.match(line)) and match[1] == key:
                return number
        return found


_HEADER: Final = re.compile(r"\s*\[\[?\s*[\"']?([^\"'\]]*?)[\"']?\s*\]")
_KEY: Final = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[.=]")


def parseRules(text: str, file: str, keepAlive: KeepAlive) -> Rules:
    """
    @param text: the file's content.
    @param file: its name, for errors.
    @param keepAlive: the interval and the count of rules that give none.
    @raise RulesError: when it cannot be used.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{file}: {error}") from error
    top = _Place(file, text, "")
    _checkKeys(top, content, ("rule", "default"))
    tables = content.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _Place(file, text, "rule").error("rule", "each rule is a table [[rule]]")
    rules = [
        _rule(_Place(file, text, "rule", ordinal), table, keepAlive)
        for ordinal, table in enumerate(tables)
    ]
    default = content.get("default", {"mode": MODES[0].name})
    place = _Place(file, text, "default")
    if not isinstance(default, dict):
        raise top.error("default", "the default is a table [default]")
    _checkKeys(place, default, _TERMS)
    return Rules(rules, _policy(place, default, keepAlive))


def _checkKeys(place: _Place, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise place.error(key, f"there is no such key; there are {', '.join(known)}")


def _rule(place: _Place, table: Mapping[str, Any], keepAlive: KeepAlive) -> Rule:
    _checkKeys(place, table, _CONDITIONS + _TERMS)
    texts = {key: _texts(place, table, key) for key in _CONDITIONS}
    networks = texts["network"]
    for transport in texts["transport"] or ():
        if transport not in _TRANSPORTS:
            raise place.error("transport", f"one of {', '.join(_TRANSPORTS)}, not {transport!r}")
    return Rule(
        _policy(place, table, keepAlive),
        None if networks is None else [_network(place, each) for each in networks],
        texts["transport"],
        texts["dn"],
        texts["user"],
    )


def _texts(place: _Place, table: Mapping[str, Any], key: str) -> list[str] | None:
    if key not in table:
        return None
    value = table[key]
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise place.error(key, f"a string or a list of strings, not {value!r}")
    return values


def _network(place: _Place, text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise place.error(
            "network", f"not a network like 10.0.0.0/8 or fd00::/8: {error}"
        ) from error


def _policy(place: _Place, table: Mapping[str, Any], keepAlive: KeepAlive) -> Policy:
    if "mode" not in table:
        raise place.error(None, f"there is no mode; it is {_MODES}")
    terms = keepAlive
    for key in ("interval", "count"):
        if key in table:
            try:
                terms = attrs.evolve(terms, **{key: table[key]})
            except (TypeError, ValueError) as error:
                raise place.error(key, str(error)) from error
            if not table[key]:
                raise place.error(key, "0 pings nobody, for which there is mode disable")
    value = table["mode"]
    for number, mode in enumerate(MODES):
        if value in (mode.name, str(number)) or (type(value) is int and value == number):
            return mode.configured(None, terms)
    raise place.error("mode", f"{_MODES}, not {value!r}")


_MODES: Final = "0, 1, 2, disable, optional or mandatory"


@implementer(IPlugin, IKeepAlivePolicy)
class RulesPolicy:
    """
    Asks the rules, each time, which mode it is to be.
    """

    name = "rules"
    description = "a mode for each peer, by the rules in a TOML file"
    argumentFormat = "FILE"

    def __init__(self, path: Path | None = None, keepAlive: KeepAlive = KeepAlive()) -> None:
        """
        @param path: the file; without one there are no rules, and mode 0 for all.
        @param keepAlive: the interval and the count of rules that give none.
        @raise RulesError: when the file cannot be used.
        """
        self._path = path
        self._keepAlive = keepAlive
        self._rules = Rules((), MODES[0])
        self.reload()

    def reload(self) -> None:
        """
        Read the file again.  What has been decided stays so.

        @raise RulesError: when it cannot be used; the rules that were there stay in use.
        """
        if self._path is None:
            return
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RulesError(f"{self._path}: cannot be read: {error}") from error
        self._rules = parseRules(text, str(self._path), self._keepAlive)

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> RulesPolicy:
        """
        See L{IKeepAlivePolicy.configured}.
        """
        if not argument:
            raise ValueError("it wants the name of a file, as in rules:/etc/kaproto/rules.toml")
        return RulesPolicy(Path(argument), keepAlive)

    def advertises(self, peer: Peer) -> bool:
        """
        See L{IKeepAlivePolicy.advertises}.
        """
        return self._rules.policyFor(peer).advertises(peer)

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        See L{IKeepAlivePolicy.keepAlive}.
        """
        return self._rules.policyFor(peer).keepAlive(peer)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        See L{IKeepAlivePolicy.admit}.
        """
        rule, policy = self._rules.decide(peer)
        return attrs.evolve(policy.admit(peer), rule=f"{rule}, mode {policy.name}")
