"""
Tests for L{kaproto.policies.rules}.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.interfaces import Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional
from kaproto.policies.conditions import CONDITIONS
from kaproto.policies.rules import Rules, RulesError, RulesPolicy, parseRules

TERMS = KeepAlive(7, 3)

EXAMPLE = """
[[rule]]
transport = "unix"
mode = 0

[[rule]]
network = ["10.0.0.0/8", "fd00::/8"]
transport = "tls"
dn = "*,O=Example,CN=backup-*"
mode = "optional"

[[rule]]
user = ["monitor*", "root"]
mode = "2"
interval = 0.5
count = 2

[default]
mode = "mandatory"
count = 9
"""


def peer(
    host: str = "192.0.2.1",
    transport: str = "tcp",
    dn: str | None = None,
    user: str | None = None,
    program: str | None = None,
) -> Peer:
    """
    @return: a peer.
    """
    address: IAddress = UNIXAddress("")
    if transport != "unix":
        kind = IPv6Address if ":" in host else IPv4Address
        address = kind("TCP", host, 1234)
    return Peer(address, transport, tlsDN=dn, user=user, program=program)


class ExampleTests(SynchronousTestCase):
    """
    Tests for the mode of a peer.
    """

    def setUp(self) -> None:
        """
        Parse the example rules.
        """
        self.rules = parseRules(EXAMPLE, "rules.toml", TERMS)

    def mode(self, somebody: Peer) -> tuple[str, KeepAlive]:
        """
        @return: the mode of a peer, with its interval and count.
        """
        policy = self.rules.ruleFor(somebody).policy
        return policy.name, policy.terms

    def test_transport(self) -> None:
        """
        A rule can match a transport.
        """
        self.assertEqual(self.mode(peer(transport="unix")), ("disable", TERMS))

    def test_all(self) -> None:
        """
        A rule matches only if all its conditions do.
        """
        dn = "C=GB,O=Example,CN=backup-1"
        self.assertEqual(self.mode(peer("10.1.2.3", "tls", dn)), ("optional", TERMS))
        self.assertEqual(self.mode(peer("fd00::1", "tls", dn))[0], "optional")
        for other in (
            peer("10.1.2.3", "tcp", dn),
            peer("11.1.2.3", "tls", dn),
            peer("10.1.2.3", "tls", "C=GB,O=Other,CN=backup-1"),
            peer("10.1.2.3", "tls"),
        ):
            self.assertEqual(self.mode(other)[0], "mandatory")

    def test_terms(self) -> None:
        """
        A rule can have its own interval and count.
        """
        for user in ("monitoring", "root"):
            self.assertEqual(self.mode(peer(user=user)), ("mandatory", KeepAlive(0.5, 2)))

    def test_first(self) -> None:
        """
        The first matching rule decides.
        """
        self.assertEqual(self.mode(peer(transport="unix", user="root"))[0], "disable")

    def test_default(self) -> None:
        """
        A peer that matches no rule gets the default.
        """
        self.assertEqual(self.mode(peer(user="alice")), ("mandatory", KeepAlive(7, 9)))

    def test_noDefault(self) -> None:
        """
        Without a default, the mode is 0.
        """
        self.rules = parseRules("", "empty", TERMS)
        self.assertEqual(self.mode(peer()), ("disable", TERMS))

    def test_modes(self) -> None:
        """
        A mode is a number, a string with that number, or a name.
        """
        for number, name in enumerate(("disable", "optional", "mandatory")):
            for value in (str(number), f'"{number}"', f'"{name}"'):
                rules = parseRules(f"[default]\nmode = {value}", "f", TERMS)
                self.assertEqual(rules.default.policy.name, name)


class ReadOnlyTests(SynchronousTestCase):
    """
    Tests for rules that open connections read-only.
    """

    def test_readOnly(self) -> None:
        """
        The first matching rule decides, with true or false, or yes or no as for listeners.
        """
        for value, readOnly in (("true", True), ("false", False), ('"yes"', True), ('"no"', False)):
            text = f'[[rule]]\nuser = "a"\nmode = 1\nreadonly = {value}\n[default]\nmode = 0'
            policy = RulesPolicy()
            policy._rules = parseRules(text, "f", TERMS)
            for user, expected in (("a", readOnly), ("b", False)):
                answer = policy.admit(peer(user=user))
                assert isinstance(answer, Admission)
                self.assertIs(answer.readOnly, expected)

    def test_program(self) -> None:
        """
        A rule for a program decides about keepalive only, since any program can have that name.
        """
        text = """
[[rule]]
program = "virt-install"
mode = "optional"

[[rule]]
user = "alice"
mode = "mandatory"
readonly = false

[default]
mode = "mandatory"
readonly = true
"""
        rules = parseRules(text, "f", TERMS)
        for somebody, name, readOnly in (
            (peer(program="virt-install"), "rule 1", True),
            (peer(program="virt-install", user="alice"), "rule 1", False),
            (peer(user="alice"), "rule 2", False),
            (peer(program="other"), "default", True),
        ):
            self.assertEqual(rules.ruleFor(somebody).name, name)
            self.assertIs(rules.isReadOnly(somebody), readOnly)


class MistakesTests(SynchronousTestCase):
    """
    Tests for invalid rules, whose errors name the file, the rule and the key.
    """

    def test_mistakes(self) -> None:
        """
        Each mistake has its own message after the name of the file.
        """
        one = "[[rule]]\nmode = 1\n"
        for text, message in (
            ("a = 1", "a: there is no such key; there are rule, default"),
            ("[[rules]]\nmode = 1", "rules: there is no such key"),
            ("[rule]\nmode = 1", "rule: write each rule as a table [[rule]]"),
            ("rule = [1]", "rule: write each rule as a table [[rule]]"),
            ("default = 1", "default: write the default as a table [default]"),
            (
                one + '\n[[rule]]\nmode = 1\nnetwrok = "10.0.0.0/8"',
                "rule 2: netwrok: there is no such key; there are network, transport, dn, cn, "
                "user, program, mode, interval, count, readonly",
            ),
            (
                '[default]\nmode = 1\nuser = "a"',
                "default: user: there is no such key; there are mode, interval, count, readonly",
            ),
            ('[[rule]]\nuser = "a"', "rule 1: mode is missing; it is 0, 1, 2"),
            ("[default]\ncount = 1", "default: mode is missing"),
            (one + 'transport = "udp"', "rule 1: transport: 'udp' is not one of tcp, tls, unix"),
            (one + 'network = ["10.0.0.0/8", "x"]', "rule 1: network: 'x' is not a network"),
            (one + "readonly = 1", "rule 1: readonly: true or false, not 1"),
            (one + 'readonly = "ja"', "rule 1: readonly: true or false, not 'ja'"),
            (one + "readonly = []", "rule 1: readonly: true or false, not []"),
            (
                one + 'program = "a"\nreadonly = false',
                "rule 1: readonly: cannot be combined with program",
            ),
            *(
                (f"[[rule]]\nmode = {value}", "rule 1: mode: 0, 1, 2, disable, opt")
                for value in ("3", "-1", "true", "1.0", '"none"', "[]", '"1.0"')
            ),
            *(
                (f"{one}{key} = {value}", f"rule 1: {key}: ")
                for key, value in [
                    ("interval", '"a"'),
                    ("interval", "-1"),
                    ("interval", "nan"),
                    ("interval", "0"),
                    ("interval", "true"),
                    ("count", "1.5"),
                    ("count", "-1"),
                    ("count", "0"),
                ]
            ),
            *(
                (f"{one}{key} = {value}", f"rule 1: {key}: a string or a list of strings, not ")
                for key in CONDITIONS
                for value in ("1", "[]", "[1]", '["a", 1]', "{}")
            ),
        ):
            error = self.assertRaises(RulesError, parseRules, text, "f.toml", TERMS)
            self.assertTrue(str(error).startswith(f"f.toml: {message}"), str(error))

    def test_syntax(self) -> None:
        """
        The error for a file that is not TOML has the line number; deep nesting is an error too.
        """
        error = self.assertRaises(RulesError, parseRules, "a = 1\nb\n", "f.toml", TERMS)
        self.assertIn("f.toml: ", str(error))
        self.assertIn("line 2", str(error))
        self.assertRaises(RulesError, parseRules, "a = " + "[" * 5000, "f.toml", TERMS)


PEERS = st.builds(
    peer,
    st.sampled_from(["10.0.0.1", "10.0.1.1", "11.0.0.1", "fd00::1", "::1"]),
    st.sampled_from(["tcp", "tls", "unix"]),
    st.none() | st.sampled_from(["CN=a", "CN=b", "O=x,CN=a"]),
    st.none() | st.sampled_from(["a", "ab", "b"]),
    st.none() | st.sampled_from(["p", "q"]),
)


def some(*values: str) -> st.SearchStrategy[list[str] | None]:
    """
    @return: some of these values for a condition, or C{None}.
    """
    return st.none() | st.lists(st.sampled_from(values), min_size=1, unique=True)


RULES = st.fixed_dictionaries(
    {
        "network": some("10.0.0.0/24", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0"),
        "transport": some("tcp", "tls", "unix"),
        "dn": some("*", "CN=?", "*CN=a"),
        "user": some("*", "a*", "b"),
        "program": some("*", "p"),
        "mode": st.integers(0, 2),
        "interval": st.none() | st.integers(1, 9),
    }
)


def glob(pattern: str, text: str | None) -> bool:
    """
    Match a pattern, independently of the implementation.
    """
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return text is not None and re.fullmatch(expression, text) is not None


def expected(rules: list[dict[str, Any]], default: int, somebody: Peer) -> tuple[int, float]:
    """
    Find the mode and the interval, independently of the implementation.
    """
    for rule in rules:
        if rule["transport"] is not None and somebody.transport not in rule["transport"]:
            continue
        if rule["network"] is not None:
            if somebody.host is None:
                continue
            address = ipaddress.ip_address(somebody.host)
            networks = [ipaddress.ip_network(each) for each in rule["network"]]
            if not any(
                network.version == address.version and address in network for network in networks
            ):
                continue
        if rule["dn"] is not None and not any(glob(each, somebody.tlsDN) for each in rule["dn"]):
            continue
        if rule["user"] is not None and not any(glob(each, somebody.user) for each in rule["user"]):
            continue
        if rule["program"] is not None and not any(
            glob(each, somebody.program) for each in rule["program"]
        ):
            continue
        return rule["mode"], rule["interval"] or 7
    return default, 7


def written(rules: list[dict[str, Any]], default: int) -> str:
    """
    @return: the rules in TOML.
    """
    lines = []
    for rule in rules:
        lines.append("[[rule]]")
        lines += [f"{key} = {value!r}" for key, value in rule.items() if value is not None]
    return "\n".join([*lines, "[default]", f"mode = {default}"])


class ModelTests(SynchronousTestCase):
    """
    Tests that compare the implementation with a model.
    """

    @given(st.lists(RULES, max_size=5), st.integers(0, 2), PEERS)
    def test_first(self, rules: list[dict[str, Any]], default: int, somebody: Peer) -> None:
        """
        L{Rules.ruleFor} and L{expected} agree for arbitrary rules and peers.
        """
        policy = parseRules(written(rules, default), "f", TERMS).ruleFor(somebody).policy
        names = ("disable", "optional", "mandatory")
        mode, interval = expected(rules, default, somebody)
        self.assertEqual((policy.name, policy.terms.interval), (names[mode], interval))


class PolicyTests(SynchronousTestCase):
    """
    Tests for L{RulesPolicy}.
    """

    def setUp(self) -> None:
        """
        Write the example to a file.
        """
        self.path = Path(self.mktemp())
        self.path.write_text(EXAMPLE)
        self.policy = RulesPolicy().configured(str(self.path), TERMS)

    def test_interface(self) -> None:
        """
        The policy provides IKeepAlivePolicy.
        """
        verifyObject(IKeepAlivePolicy, self.policy)

    def test_asks(self) -> None:
        """
        The policy treats each peer as its rule says.
        """
        unix, monitor, anybody = peer(transport="unix"), peer(user="monitor"), peer()
        self.assertIsNone(self.policy.keepAlive(unix))
        self.assertEqual(self.policy.keepAlive(monitor), KeepAlive(0.5, 2))
        self.assertEqual(self.policy.keepAlive(anybody), KeepAlive(7, 9))
        self.assertTrue(self.policy.advertises(anybody))
        self.assertEqual(self.policy.admit(unix), Admission(rule="rule 1, mode disable"))
        refused = self.policy.admit(anybody)
        assert isinstance(refused, Refused)
        self.assertEqual(refused.rule, "default, mode mandatory")
        anybody.asked = True
        self.assertEqual(self.policy.admit(anybody), Admission(rule="default, mode mandatory"))

    def test_noArgument(self) -> None:
        """
        Without a file name, the policy cannot be configured.
        """
        for argument in (None, ""):
            with self.assertRaisesRegex(ValueError, "needs the name of a file"):
                RulesPolicy().configured(argument, TERMS)

    def test_unconfigured(self) -> None:
        """
        An unconfigured policy is mode 0.
        """
        policy = RulesPolicy()
        policy.reload()
        self.assertIsNone(policy.keepAlive(peer()))

    def test_unreadable(self) -> None:
        """
        The error for an unreadable file names the file.
        """
        with self.assertRaisesRegex(RulesError, "nothere: cannot be read"):
            RulesPolicy().configured("nothere", TERMS)
        self.path.write_bytes(b"\xff")
        with self.assertRaisesRegex(RulesError, "cannot be read"):
            self.policy.reload()

    def test_reload(self) -> None:
        """
        Changed rules apply after a reload.
        """
        self.path.write_text("[default]\nmode = 1")
        self.assertIsInstance(self.policy.admit(peer()), Refused)
        self.policy.reload()
        self.assertNotIsInstance(self.policy.admit(peer()), Refused)

    def test_reloadFails(self) -> None:
        """
        When reloading fails, the old rules stay in force.
        """
        self.path.write_text("[default]\nmode = 9")
        self.assertRaises(RulesError, self.policy.reload)
        self.assertEqual(self.policy.keepAlive(peer()), KeepAlive(7, 9))


class KindsTests(SynchronousTestCase):
    """
    Tests for the policies of rules.
    """

    def test_modes(self) -> None:
        """
        Rules use the three modes.
        """
        rules = parseRules(EXAMPLE, "f", TERMS)
        self.assertIsInstance(rules, Rules)
        kinds = [type(rule.policy) for rule in rules.rules]
        self.assertEqual(kinds, [Disable, Optional, Mandatory])
