"""
Tests for L{kaproto.app.options}.
"""

from __future__ import annotations

import sys
from io import StringIO

from twisted.internet.endpoints import StandardIOEndpoint, UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kaproto import __version__
from kaproto.app.options import DEFAULT_LISTEN, Options
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Disable, Mandatory, Optional
from kaproto.server import KeepAliveServerFactory

NUMBERS = ("-1", "nan", "inf", "-inf", "1e400", "five", "", "1,5", "0x10")
"""
What is no number of seconds anywhere.
"""


class OptionsTestCase(SynchronousTestCase):
    """
    A test of command lines.
    """

    def setUp(self) -> None:
        """
        Have a reactor that listens nowhere.
        """
        self.reactor = MemoryReactorClock()

    def parse(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        options = Options(self.reactor)
        options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
        return options

    def refuse(self, *arguments: str) -> str:
        """
        @return: how a bad command line is refused.
        """
        return str(self.assertRaises(UsageError, self.parse, *arguments))

    def listen(self, options: Options) -> None:
        """
        Listen on all endpoints.
        """
        factory = KeepAliveServerFactory(clock=self.reactor)
        for _description, endpoint in options.endpoints:
            self.successResultOf(endpoint.listen(factory))

    def printed(self, *arguments: str) -> str:
        """
        @return: what a command line prints that does nothing else.
        """
        output = StringIO()
        self.patch(sys, "stdout", output)
        ended = self.assertRaises(SystemExit, self.parse, *arguments)
        self.assertIn(ended.code, (0, None))
        return output.getvalue()


class GoodTests(OptionsTestCase):
    """
    Command lines that can be used.
    """

    def test_defaults(self) -> None:
        """
        Unless told otherwise it is mode 0 on libvirt's port, on this machine only.
        """
        options = self.parse()
        self.assertEqual(options.policy, Disable(KeepAlive(5, 5)))
        self.assertEqual(options.keepAlive, KeepAlive(5, 5))
        self.assertEqual([description for description, _ in options.endpoints], [DEFAULT_LISTEN])
        self.assertIsNone(options.upstream)
        self.assertEqual((options["open-timeout"], options["grace"]), (10, 5))
        self.assertEqual((options["upstream-interval"], options["upstream-count"]), (10, 5))
        self.assertFalse(options["insecure"])
        self.assertFalse(options["forward-identity"])
        self.listen(options)
        port, _factory, backlog, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, backlog, interface), (16509, 1024, "127.0.0.1"))

    def test_reactor(self) -> None:
        """
        By default the endpoints are the reactor's.
        """
        options = Options()
        options.parseOptions(["--upstream=unix:/x/y"])  # type: ignore[no-untyped-call]
        ((description, _endpoint),) = options.endpoints
        self.assertEqual(description, DEFAULT_LISTEN)
        self.assertIsInstance(options.upstream, UNIXClientEndpoint)

    def test_mode(self) -> None:
        """
        The mode is a number or a name.
        """
        for mode, policy in (("1", Optional()), ("mandatory", Mandatory()), ("0", Disable())):
            self.assertEqual(self.parse(f"--mode={mode}").policy, policy)
            self.assertEqual(self.parse("-m", mode).policy, policy)

    def test_numbers(self) -> None:
        """
        The interval may have decimals, the count not, and the policy gets both.
        """
        options = self.parse(
            "--mode=2",
            "--interval=0.05",
            "--count=1",
            "--open-timeout=0.1",
            "--grace=0",
            "--upstream-interval=0",
            "--upstream-count=0",
        )
        self.assertEqual(options.policy, Mandatory(KeepAlive(0.05, 1)))
        self.assertEqual((options["open-timeout"], options["grace"]), (0.1, 0))
        self.assertEqual((options["upstream-interval"], options["upstream-count"]), (0, 0))
        options = self.parse("-i", "2147483", "-c", "100")
        self.assertEqual(options.keepAlive, KeepAlive(2147483, 100))

    def test_listen(self) -> None:
        """
        There may be several endpoints, in place of the default one; those that have a backlog
        have a long one unless they say so.
        """
        options = self.parse(
            "--listen=tcp:0:interface=127.0.0.1",
            "-l",
            "tcp:1:backlog=7",
            "--listen=tcp6:2:interface=\\:\\:1",
            "--listen=unix:/x/y:mode=600",
        )
        self.assertEqual(len(options.endpoints), 4)
        self.listen(options)
        self.assertEqual(
            [(port, backlog) for port, _factory, backlog, _interface in self.reactor.tcpServers],
            [(0, 1024), (1, 7), (2, 1024)],
        )
        path, _factory, backlog, mode, _pid = self.reactor.unixServers[0]
        self.assertEqual((path, backlog, mode), ("/x/y", 1024, 0o600))

    def test_lockFile(self) -> None:
        """
        UNIX sockets have no lock beside them, which would outlive a server that is killed, unless
        it is asked for.
        """
        descriptions = ["unix:/x/y", "haproxy:unix:/x/y", "unix:/x/y:lockfile=1"]
        self.listen(self.parse(*(f"--listen={each}" for each in descriptions)))
        self.assertEqual([each[-1] for each in self.reactor.unixServers], [False, False, True])

    def test_listenWithoutBacklog(self) -> None:
        """
        Endpoints that have no backlog are left as they are.
        """
        ((description, endpoint),) = self.parse("--listen=stdio:").endpoints
        self.assertEqual(description, "stdio:")
        self.assertIsInstance(endpoint, StandardIOEndpoint)

    def test_upstream(self) -> None:
        """
        The upstream is an endpoint string or a libvirt URI.
        """
        for upstream in (
            "unix:/run/libvirt/libvirt-sock",
            "qemu:///system",
            "test+tcp://h/default",
        ):
            options = self.parse(f"--upstream={upstream}", "--forward-identity")
            self.assertIsNotNone(options.upstream)
            self.assertEqual(options["upstream"], upstream)
            self.assertTrue(options["forward-identity"])

    def test_upstreamAsk(self) -> None:
        """
        Unless told otherwise, libvirtd is asked for keepalive wherever it is not reached on a UNIX
        socket.
        """
        local, remote = "--upstream=unix:/x/y", "--upstream=qemu+tcp://192.0.2.1/system"
        for arguments, asks in (
            ([local], False),
            ([remote], True),
            ([local, "--upstream-ask=auto"], False),
            ([local, "--upstream-ask=yes"], True),
            ([remote, "--upstream-ask=no"], False),
        ):
            self.assertIs(self.parse(*arguments).upstreamAsk, asks)

    def test_insecure(self) -> None:
        """
        Who wants to can be insecure.
        """
        self.assertTrue(self.parse("--insecure")["insecure"])


class BadTests(OptionsTestCase):
    """
    Bad values are refused with an error that names the flag, the value and what is allowed.
    """

    def assertRefused(self, flag: str, values: tuple[str, ...], *parts: str) -> None:
        """
        Check that values are refused.
        """
        for value in values:
            error = self.refuse(f"--{flag}={value}")
            for part in (f"--{flag}", value, *parts):
                self.assertIn(part, error)

    def test_mode(self) -> None:
        """
        A mode is one of three, or a policy that is installed.
        """
        self.assertRefused("mode", ("3", "-1", "1.5", "nonsense"), "0, 1, 2, disable, mandatory")
        self.assertRefused("mode", ("2:argument",), "takes no argument")

    def test_interval(self) -> None:
        """
        An interval is a number of seconds within bounds.
        """
        self.assertRefused("interval", (*NUMBERS, "0", "0.049", "2147484"), "0.05 to 2147483")

    def test_count(self) -> None:
        """
        A count is a whole number of at least one.
        """
        bad = ("1.5", "0", "-1", "nan", "", "+5", "5 ", "1e3", "\u0665")
        self.assertRefused("count", bad, "a whole number from 1 up")

    def test_openTimeout(self) -> None:
        """
        Some time to open there must be.
        """
        self.assertRefused("open-timeout", (*NUMBERS, "0", "0.09"), "0.1 to 2147483")

    def test_grace(self) -> None:
        """
        The grace may be nothing but not less.
        """
        self.assertRefused("grace", NUMBERS, "0 to 2147483")

    def test_upstreamNumbers(self) -> None:
        """
        The upstream's interval and count may be zero but not less.
        """
        self.assertRefused("upstream-interval", NUMBERS, "0 to 2147483")
        self.assertRefused("upstream-count", ("-1", "1.5", "x"), "a whole number from 0 up")
        self.assertRefused("upstream-ask", ("", "maybe"), "auto, yes or no")

    def test_listen(self) -> None:
        """
        An endpoint that cannot be parsed is refused, with an example of one that can.
        """
        bad = (
            "nonsense",
            "tcp",
            "tcp:port",
            "tcp:0:nosuch=1",
            "unix",
            "16509",
            "",
        )
        self.assertRefused("listen", bad, "a Twisted server endpoint, such as tcp:16509")
        for value in bad:
            self.assertIn(f"--listen={value}: ", self.refuse(f"--listen={value}"))

    def test_noPath(self) -> None:
        """
        A UNIX socket has a path.
        """
        self.assertRefused("listen", ("unix:", "unix::mode=600", "haproxy:unix:"), "takes a path")

    def test_systemd(self) -> None:
        """
        A socket that systemd has not passed is named, where Twisted itself only raises a
        C{KeyError}.
        """
        for prefix in ("", "haproxy:"):
            error = self.refuse(f"--listen={prefix}systemd:domain=INET:name=nosuch")
            self.assertIn("systemd has passed no socket named 'nosuch'", error)

    def test_upstream(self) -> None:
        """
        An upstream that cannot be parsed is refused, with examples of some that can.
        """
        bad = ("nonsense", "tcp", "ssh+qemu://x", "qemu+ssh://host/system", "")
        self.assertRefused("upstream", bad, "unix:/run/libvirt/libvirt-sock", "qemu:///system")

    def test_forwardIdentity(self) -> None:
        """
        An identity can be forwarded only to an upstream.
        """
        error = self.refuse("--forward-identity")
        self.assertIn("--forward-identity needs --upstream", error)

    def test_unknown(self) -> None:
        """
        Flags that do not exist and words that are no flags are refused.
        """
        self.assertIn("nosuch", self.refuse("--nosuch"))
        self.assertIn("Wrong number of arguments", self.refuse("mandatory"))


class HelpTests(OptionsTestCase):
    """
    What can be asked of the command line.
    """

    def test_help(self) -> None:
        """
        The help names every flag.
        """
        text = self.printed("--help")
        for flag in (
            "mode",
            "listen",
            "interval",
            "count",
            "open-timeout",
            "grace",
            "upstream",
            "upstream-interval",
            "upstream-count",
            "upstream-ask",
            "forward-identity",
            "insecure",
            "help-policies",
            "version",
        ):
            self.assertIn(f"--{flag}", text)
        self.assertIn("virsh -c test+tcp://127.0.0.1/default hostname", " ".join(text.split()))

    def test_version(self) -> None:
        """
        The version is this package's and not Twisted's.
        """
        self.assertEqual(self.printed("--version"), f"kaserver (kaproto) {__version__}\n")

    def test_policies(self) -> None:
        """
        The policies are described.
        """
        text = self.printed("--help-policies")
        for name in ("disable", "optional", "mandatory"):
            self.assertRegex(text, rf"(?m)^  {name} +mode \d: ")
