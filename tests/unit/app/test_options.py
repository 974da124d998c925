"""
Tests for L{kaproto.app.options}.
"""

from __future__ import annotations

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.python.usage import Options as BaseOptions

from kaproto import __version__
from kaproto.app.listeners import DEFAULT_LISTEN
from kaproto.app.options import Options
from kaproto.app.settings import SETTINGS
from kaproto.interfaces import Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional
from tests.support_options import TCP, UNIX, OptionsTestCase


class GoodTests(OptionsTestCase):
    """
    Tests for valid command lines.
    """

    def test_defaults(self) -> None:
        """
        By default the server is in mode 0, listens on libvirt's port on the loopback address, and
        does not authenticate clients.
        """
        options = self.parse()
        self.assertEqual(options.policy, Disable(KeepAlive(5, 5)))
        self.assertEqual(options.keepAlive, KeepAlive(5, 5))
        self.assertEqual(self.descriptions(options), [DEFAULT_LISTEN])
        self.assertIsNone(options.upstream)
        self.assertEqual(options.limits, Limits())
        self.assertEqual(options.limits.loginTimeout, 60)
        self.assertEqual(options.checkers, [])
        (listener,) = options.listeners
        self.assertFalse(listener.authenticates)
        self.assertIsNone(listener.folder)
        for name, setting in SETTINGS.items():
            self.assertEqual(options[name], setting.default)

    def test_reactor(self) -> None:
        """
        Endpoints use the global reactor by default.
        """
        options = Options()
        options.parseOptions(["--upstream=unix:/x/y"])
        assert options.upstream is not None
        self.assertIsInstance(options.upstream.endpoint, UNIXClientEndpoint)

    def test_mode(self) -> None:
        """
        A mode is given by number or name.
        """
        for mode, policy in (("1", Optional()), ("mandatory", Mandatory()), ("0", Disable())):
            self.assertEqual(self.parse(f"--mode={mode}").policy, policy)
            self.assertEqual(self.parse("-m", mode).policy, policy)

    def test_numbers(self) -> None:
        """
        Numeric flags set the policy's interval and count, and the limits.
        """
        options = self.parse(
            "--mode=2",
            "--interval=0.05",
            "--count=1",
            "--open-timeout=0.1",
            "--handshake-timeout=3",
            "--auth-timeout=1.5",
            "--auth-tries=2",
            "--auth-guesses=4",
            "--auth-delay=0",
            "--max-clients=7",
            "--max-anonymous-clients=8",
            "--grace=0",
            "--upstream-interval=0",
        )
        self.assertEqual(options.policy, Mandatory(KeepAlive(0.05, 1)))
        self.assertEqual(
            options.limits,
            Limits(
                maxClients=7,
                maxAnonymousClients=8,
                handshakeTimeout=3,
                loginTimeout=1.5,
                loginTries=2,
                loginGuesses=4,
                failureDelay=0,
                openTimeout=0.1,
            ),
        )
        self.assertEqual((options["grace"], options["upstream-interval"]), (0, 0))
        options = self.parse("-i", "2147483", "-c", "100")
        self.assertEqual(options.keepAlive, KeepAlive(2147483, 100))

    def test_listen(self) -> None:
        """
        C{--listen} can be repeated, and replaces the default.
        """
        options = self.parse(TCP, "-l", "tcp:1:backlog=7", UNIX)
        self.assertEqual(
            self.descriptions(options),
            ["tcp:16509:interface=127.0.0.1", "tcp:1:backlog=7", "unix:/x/y"],
        )

    def test_readOnly(self) -> None:
        """
        A listener can be read-only.
        """
        listen = [f"--listen=unix:/x/{name}" for name in ("y:readonly=yes", "z:readonly=no", "w")]
        options = self.parse(*listen)
        readOnly = [each.accessControl.readOnly for each in options.listeners]
        self.assertEqual(readOnly, [True, False, False])

    def test_except(self) -> None:
        """
        Clients can be exempted from keepalive, on the command line or in the file.
        """
        exempt, others = Peer(program="virt-install"), Peer(program="virt-clone")
        for arguments in (
            ["--except=program=virt-install", "--except=user=alice"],
            [self.config('except = ["program=virt-install"]')],
        ):
            options = self.parse("--mode=2", *arguments)
            self.assertEqual(options.basePolicy, Mandatory())
            self.assertNotIsInstance(options.policy.admit(exempt), Refused)
            self.assertIsInstance(options.policy.admit(others), Refused)

    def test_insecure(self) -> None:
        """
        C{--insecure} allows a gateway on plain TCP.
        """
        self.assertTrue(self.parse("--insecure")["insecure"])
        self.parse("--upstream=qemu:///system", TCP, "--insecure")


class BadTests(OptionsTestCase):
    """
    Invalid values are refused with an error that names the flag and the value, and says what is
    allowed.
    """

    def assertRefused(self, flag: str, values: tuple[str, ...], *parts: str) -> None:
        """
        Check that each value is refused, and that the error has all C{parts}.
        """
        for value in values:
            error = self.refuse(f"--{flag}={value}")
            for part in (f"--{flag}", value, *parts):
                self.assertIn(part, error)

    def test_mode(self) -> None:
        """
        Unknown modes are refused, and so is an argument for a mode that takes none.
        """
        bad = ("3", "-1", "1.5", "nonsense", "")
        self.assertRefused("mode", bad, "0, 1, 2, disable, mandatory")
        self.assertRefused("mode", ("2:argument",), "takes no argument")

    def test_numbers(self) -> None:
        """
        Numbers outside their bounds are refused.
        """
        for flag, bad, allowed in (
            (
                "interval",
                ("0", "2147484", "x", ""),
                "takes a number of seconds from 0.05 to 2147483",
            ),
            ("count", ("0", "1.5", ""), "takes a whole number from 1 up"),
            ("open-timeout", ("0.09",), "takes a number of seconds from 0.1 to 2147483"),
            ("upstream-count", ("-1",), "takes a whole number from 0 up"),
            ("upstream-ask", ("maybe", ""), "is one of auto, yes, no"),
        ):
            for value in bad:
                error = self.refuse(f"--{flag}={value}")
                self.assertEqual(error, f"--{flag} {allowed}, not {value!r}")

    def test_listen(self) -> None:
        """
        An invalid endpoint is refused with a suggestion or an example.
        """
        self.assertIn("--listen=16509: is --listen=tcp:16509:", self.refuse("--listen=16509"))
        bad = ("nonsense", "tcp:port", "")
        self.assertRefused("listen", bad, "a Twisted server endpoint, such as tcp:16509")

    def test_except(self) -> None:
        """
        The error for an invalid exception quotes it and gives the reason.
        """
        for text, message in (
            ("alice", "--except=alice: a condition has a name and a value, such as program="),
            ("network=10.1.1.1/8", "--except=network=10.1.1.1/8: network: '10.1.1.1/8' is an add"),
        ):
            self.assertIn(message, self.refuse("--mode=2", f"--except={text}"))

    def test_forwardIdentity(self) -> None:
        """
        C{--forward-identity} needs C{--upstream}.
        """
        error = self.refuse("--forward-identity")
        self.assertIn("--forward-identity needs --upstream", error)
        options = self.parse("--forward-identity", "--upstream=qemu:///system")
        self.assertTrue(options["forward-identity"])
        self.assertIsNotNone(options.upstream)

    def test_unknown(self) -> None:
        """
        Unknown flags and stray arguments are refused.
        """
        self.assertIn("nosuch", self.refuse("--nosuch"))
        self.assertIn("unexpected argument 'mandatory'", self.refuse("mandatory"))

    def test_underTwistd(self) -> None:
        """
        Under C{twistd} a mistake ends the process with just the message.
        """
        options = Options(self.reactor)
        options.parent = BaseOptions()
        ended = self.assertRaises(SystemExit, options.parseOptions, ["--interval=x"])
        self.assertEqual(
            ended.code,
            "kaserver: --interval takes a number of seconds from 0.05 to 2147483, not 'x'",
        )


class OperationsTests(OptionsTestCase):
    """
    Tests for the endpoints of monitoring and administration.
    """

    def test_none(self) -> None:
        """
        By default there are no endpoints for administration and status.
        """
        options = self.parse()
        self.assertIsNone(options.admin)
        self.assertIsNone(options.statusPage)

    def test_endpoints(self) -> None:
        """
        C{--admin} and C{--status} take endpoints.
        """
        options = self.parse("--admin=/x/admin", "--status=tcp:9164:interface=127.0.0.1")
        self.assertIsNotNone(options.admin)
        self.assertIsNotNone(options.statusPage)

    def test_mistakes(self) -> None:
        """
        The error for an invalid endpoint names its flag.
        """
        self.assertIn("--admin=tcp:1: administration is over", self.refuse("--admin=tcp:1"))
        self.assertEqual(
            self.refuse("--status=9164"),
            "--status=9164: is --status=tcp:9164:interface=127.0.0.1 meant?",
        )


class ConfigTests(OptionsTestCase):
    """
    Tests for C{--config}.
    """

    def test_checkMistakes(self) -> None:
        """
        C{--check} reports the same mistakes as a start.
        """
        self.assertIn("--interval", self.refuse("--check", "--interval=x"))


class HelpTests(OptionsTestCase):
    """
    Tests for C{--help}, C{--version} and C{--help-policies}.
    """

    def test_help(self) -> None:
        """
        The help lists every flag.
        """
        text = self.printed("--help")
        for flag in (*SETTINGS, "help-policies", "help-auth", "version"):
            self.assertIn(f"--{flag}", text)
        self.assertIn("virsh -c test+tcp://127.0.0.1/default hostname", " ".join(text.split()))

    def test_version(self) -> None:
        """
        The version is kaproto's, not Twisted's.
        """
        self.assertEqual(self.printed("--version"), f"kaserver (kaproto) {__version__}\n")

    def test_policies(self) -> None:
        """
        C{--help-policies} describes each policy.
        """
        text = self.printed("--help-policies")
        for name in ("disable", "optional", "mandatory"):
            self.assertRegex(text, rf"(?m)^  {name} +mode \d: ")
