"""
Tests for L{kaproto.app.options}.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kaproto import __version__
from kaproto.app.listeners import DEFAULT_LISTEN
from kaproto.app.options import Options
from kaproto.app.settings import SETTINGS
from kaproto.interfaces import Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional
from kaproto.security.clientauth import Authentication
from kaproto.security.endpoints import TLSServerEndpoint
from kaproto.security.saslclient import Login
from kaproto.wire.programs import AuthType
from tests.pki import Authority, distinguished

TCP = "--listen=tcp:16509:interface=127.0.0.1"
UNIX = "--listen=unix:/x/y"


class OptionsTestCase(SynchronousTestCase):
    """
    A test of command lines.

    @ivar folder: has the files that they name.
    """

    def setUp(self) -> None:
        """
        Have a reactor that listens nowhere, and no folder of systemd's.
        """
        self.reactor = MemoryReactorClock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.enterContext(patch.dict(os.environ, {"RUNTIME_DIRECTORY": "/run/ours"}))

    def parse(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        options = Options(self.reactor)
        options.parseOptions(list(arguments))
        return options

    def refuse(self, *arguments: str) -> str:
        """
        @return: how a bad command line is refused.
        """
        return str(self.assertRaises(UsageError, self.parse, *arguments))

    def printed(self, *arguments: str) -> str:
        """
        @return: what a command line prints that does nothing else.
        """
        output = StringIO()
        self.patch(sys, "stdout", output)
        ended = self.assertRaises(SystemExit, self.parse, *arguments)
        self.assertIn(ended.code, (0, None))
        return output.getvalue()

    def config(self, text: str) -> str:
        """
        @return: the flag that names a file with this text.
        """
        path = self.folder / "kaserver.toml"
        path.write_text(text)
        return f"--config={path}"

    def descriptions(self, options: Options) -> Sequence[str]:
        """
        @return: where to listen.
        """
        return [each.description for each in options.listeners]


class GoodTests(OptionsTestCase):
    """
    Command lines that can be used.
    """

    def test_defaults(self) -> None:
        """
        Unless told otherwise it is mode 0 on libvirt's port, on this machine only, and nobody has
        to log in.
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
        By default the endpoints are the reactor's.
        """
        options = Options()
        options.parseOptions(["--upstream=unix:/x/y"])
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
        The interval may have decimals, the count not, and the policy gets both; the limits get the
        others.
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
        There may be several places, instead of the default one.
        """
        options = self.parse(TCP, "-l", "tcp:1:backlog=7", UNIX)
        self.assertEqual(
            self.descriptions(options),
            ["tcp:16509:interface=127.0.0.1", "tcp:1:backlog=7", "unix:/x/y"],
        )

    def test_readOnly(self) -> None:
        """
        All connections to a listener may be read-only.
        """
        listen = [f"--listen=unix:/x/{name}" for name in ("y:readonly=yes", "z:readonly=no", "w")]
        options = self.parse(*listen)
        readOnly = [each.accessControl.readOnly for each in options.listeners]
        self.assertEqual(readOnly, [True, False, False])

    def test_except(self) -> None:
        """
        There may be exceptions from keepalive, from the command line or the file.
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

    def test_gatewayListens(self) -> None:
        """
        Unless told otherwise a gateway listens on a UNIX socket for its owner and its group, whose
        folder is made.
        """
        options = self.parse("--upstream=qemu:///system")
        (listener,) = options.listeners
        self.assertEqual(listener.description, "unix:/run/ours/libvirt-sock:mode=660")
        self.assertEqual(listener.folder, Path("/run/ours"))

    def test_insecure(self) -> None:
        """
        Who wants to can be insecure.
        """
        self.assertTrue(self.parse("--insecure")["insecure"])
        self.parse("--upstream=qemu:///system", TCP, "--insecure")


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
        bad = ("3", "-1", "1.5", "nonsense", "")
        self.assertRefused("mode", bad, "0, 1, 2, disable, mandatory")
        self.assertRefused("mode", ("2:argument",), "takes no argument")

    def test_numbers(self) -> None:
        """
        Numbers have bounds.
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
        A place that is none is refused with what was meant, or an example.
        """
        self.assertIn("--listen=16509: is --listen=tcp:16509:", self.refuse("--listen=16509"))
        bad = ("nonsense", "tcp:port", "")
        self.assertRefused("listen", bad, "a Twisted server endpoint, such as tcp:16509")

    def test_upstream(self) -> None:
        """
        An upstream that is none is refused with what was meant, or examples.
        """
        for upstream, meant in (
            ("tcp://host:1", "tcp:host:1"),
            ("unix:///x", "unix:/x"),
            ("http://host", "qemu+tls://HOST/system"),
        ):
            self.assertIn(f"is --upstream={meant} meant?", self.refuse(f"--upstream={upstream}"))
        bad = ("nonsense", "tcp", "ssh+qemu://x", "qemu+ssh://host/system", "")
        self.assertRefused("upstream", bad, "unix:/run/libvirt/libvirt-sock", "qemu:///system")
        self.assertEqual(
            self.refuse("--upstream=/run/libvirt/libvirt-sock"),
            "--upstream=/run/libvirt/libvirt-sock: is --upstream=unix:/run/libvirt/libvirt-sock "
            "meant?",
        )

    def test_except(self) -> None:
        """
        An exception that cannot be used is named.
        """
        for text, message in (
            ("alice", "--except=alice: begins with one of network=, transport=, dn="),
            ("network=10.1.1.1/8", "--except=network=10.1.1.1/8: network: '10.1.1.1/8' is an add"),
        ):
            self.assertIn(message, self.refuse("--mode=2", f"--except={text}"))

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
        self.assertIn("'mandatory' belongs to no option", self.refuse("mandatory"))

    def test_noFolder(self) -> None:
        """
        Where a gateway has no folder for its socket, it asks for one.
        """
        self.patch(os, "environ", {})
        self.patch(os, "geteuid", lambda: 7)
        self.assertIn("such as --listen=unix:/path", self.refuse("--upstream=qemu:///system"))
        self.parse("--upstream=qemu:///system", UNIX)

    def test_underTwistd(self) -> None:
        """
        Within C{twistd} a mistake ends it with the message alone.
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
    Where the server is watched and administered.
    """

    def test_none(self) -> None:
        """
        Nowhere, unless told.
        """
        options = self.parse()
        self.assertIsNone(options.admin)
        self.assertIsNone(options.statusPage)

    def test_endpoints(self) -> None:
        """
        Both are endpoints.
        """
        options = self.parse("--admin=/x/admin", "--status=tcp:9164:interface=127.0.0.1")
        self.assertIsNotNone(options.admin)
        self.assertIsNotNone(options.statusPage)

    def test_mistakes(self) -> None:
        """
        A mistake is named with its flag.
        """
        self.assertIn("--admin=tcp:1: administration is over", self.refuse("--admin=tcp:1"))
        self.assertEqual(
            self.refuse("--status=9164"),
            "--status=9164: is --status=tcp:9164:interface=127.0.0.1 meant?",
        )


class AccessTests(OptionsTestCase):
    """
    Who may connect.
    """

    def setUp(self) -> None:
        """
        Make certificates and a file of passwords.
        """
        super().setUp()
        self.authority = Authority()
        self.authority.write(str(self.folder), self.authority.issue(distinguished("server")))
        self.tls = f"--listen=libvirttls:16514:pki={self.folder}"
        self.users = self.folder / "users"
        self.users.write_text("alice:sesame\n")
        self.auth = f"--auth=file:{self.users}"

    def test_auth(self) -> None:
        """
        Over TLS and UNIX sockets clients can be made to log in.
        """
        for listen in (self.tls, UNIX):
            options = self.parse(self.auth, listen)
            (listener,) = options.listeners
            self.assertTrue(listener.authenticates)
            self.assertIsNotNone(listener.accessControl.portal)
            self.assertEqual(len(options.checkers), 1)

    def test_authOverTCP(self) -> None:
        """
        Over plain TCP they cannot, and what to do instead is said.
        """
        for arguments in ((TCP,), (self.tls, TCP), ()):
            message = self.refuse(self.auth, *arguments)
            self.assertIn("--auth with --listen=tcp:16509", message)
            self.assertIn("--listen=libvirttls:16514", message)

    def test_authUnusable(self) -> None:
        """
        A checker that there is not, or that cannot be used, is refused, without its argument,
        which may be a secret.
        """
        bad = self.folder / "bad"
        bad.write_text("alice:sesame:\n")
        for auth, words in [
            ("nosuch:sesame", "--auth=nosuch: there is no such checker; --help-auth lists them"),
            ("anonymous", "--auth=anonymous: it does not check passwords"),
            ("file:", "--auth=file: it takes the path of a file, as in --auth=file:/etc/kaserver/"),
            ("scram:", "--auth=scram: it takes the path of a file"),
            ("file:/nothere", "--auth=file: /nothere: cannot be read: No such file"),
            (f"file:{bad}", f"--auth=file: {bad}, line 1: "),
            ("memory:sesame", "--auth=memory: "),
            (f"scram:{bad}", f"--auth=scram: {bad}, line 1: "),
        ]:
            message = self.refuse(f"--auth={auth}", self.tls)
            self.assertIn(words, message)
            self.assertNotIn("sesame", message)

    def test_authTwice(self) -> None:
        """
        Two checkers for the same are refused.
        """
        other = "--auth=memory:alice:sesame"
        self.assertIn("--auth: two checkers", self.refuse(self.auth, other, self.tls))

    def test_authOfOne(self) -> None:
        """
        In a file each place may have its own way to log in, or none; a checker is made once.
        """
        file = f"file:{self.users}"
        options = self.parse(
            self.config(
                f'auth = "{file}"\n'
                f'[[listen]]\nendpoint = "libvirttls:16514:pki={self.folder}"\n'
                f'tls-allowed-dn = "CN=*"\n'
                '[[listen]]\nendpoint = "unix:/x"\nauth = []\n'
                f'[[listen]]\nendpoint = "unix:/y"\nauth = ["{file}"]\n'
            )
        )
        self.assertEqual([each.authenticates for each in options.listeners], [True, False, True])
        self.assertEqual(
            [each.accessControl.tlsAllowedDNs for each in options.listeners], [["CN=*"], None, None]
        )
        self.assertEqual(len(options.checkers), 1)

    def test_headersFromHere(self) -> None:
        """
        Where any program of this machine could write a PROXY header, that has to be wanted.
        """
        for listen in (
            "--listen=proxy:tcp:1:from=127.0.0.1",
            f"{self.tls}:from=0.0.0.0/0".replace("--listen=", "--listen=proxy:"),
        ):
            self.assertIn("proxy:unix:PATH", self.refuse(listen))
            self.parse(listen, "--insecure")

    def test_terminated(self) -> None:
        """
        Where a balancer ends TLS, clients are known by their certificates, and can give passwords.
        """
        listen = "--listen=proxy:tcp:1:from=192.0.2.1:tls=terminated"
        (listener,) = self.parse(listen, "--tls-allowed-dn=CN=a", "--auth=memory:a:b").listeners
        self.assertTrue(listener.authenticates)
        self.assertFalse(listener.believesEverybodyHere)
        (listener,) = self.parse(f"{listen}:certificate=optional").listeners
        self.assertFalse(listener.authenticates)

    def test_unauthenticatedGateway(self) -> None:
        """
        In front of an upstream, nobody may connect over TCP without authentication, and the error
        has both ways out; over a UNIX socket, with a certificate or a password they may.
        """
        upstream = "--upstream=unix:/x"
        for listen in (
            TCP,
            "--listen=tcp:1",
            f"{self.tls}:verify=no",
            "--listen=proxy:tcp:1:from=192.0.2.1",
        ):
            message = self.refuse(upstream, listen)
            self.assertIn(listen, message)
            self.assertIn("leave --listen out, or --listen=unix:", message)
            self.assertIn("--insecure", message)
        for arguments in ((self.tls,), (UNIX,), (f"{self.tls}:verify=no", self.auth)):
            self.parse(upstream, *arguments)

    def test_allowedDNs(self) -> None:
        """
        Patterns for names in certificates are collected.
        """
        options = self.parse("--tls-allowed-dn=CN=a", "--tls-allowed-dn=*,CN=b", self.tls)
        (listener,) = options.listeners
        self.assertEqual(listener.accessControl.tlsAllowedDNs, ["CN=a", "*,CN=b"])
        self.assertIsInstance(listener.endpoint, TLSServerEndpoint)

    def test_allowedDNsWithoutCertificates(self) -> None:
        """
        Where no certificates are wanted they would have no effect, and are refused.
        """
        for listen in (TCP, f"{self.tls}:verify=no"):
            message = self.refuse("--tls-allowed-dn=CN=a", listen)
            self.assertIn("--tls-allowed-dn without a listener that wants certificates", message)

    def test_badFiles(self) -> None:
        """
        What is wrong with a certificate is said in one plain sentence.
        """
        (self.folder / "CA/cacert.pem").unlink()
        for flag in (self.tls, "--upstream=test+tls://h/default?pkipath=/nothere"):
            message = self.refuse(flag)
            self.assertIn("/cacert.pem: there is no such file", message)
            self.assertNotIn("Error", message)
            self.assertNotIn("endpoint, such as", message)

    def test_upstreamLogin(self) -> None:
        """
        The gateway's own name and password come from a file that the upstream's URI names.
        """
        file = self.folder / "auth.conf"
        uri = f"test+unix:///default?socket=/x/y&authfile={file}"
        self.assertIn("auth.conf: cannot be read", self.refuse(f"--upstream={uri}"))
        file.write_text(
            "[credentials-a]\nauthname=fred\npassword=s\n[auth-libvirt-default]\ncredentials=a\n"
        )
        authentication = self.parse(f"--upstream={uri}").upstreamAuthentication
        assert callable(authentication.login)
        self.assertEqual(authentication.login(), Login("fred", "s"))
        plain = self.parse("--upstream=unix:/x/y").upstreamAuthentication
        self.assertEqual(plain, Authentication())
        asked = self.parse("--upstream=qemu:///system?auth=polkit").upstreamAuthentication
        self.assertEqual(asked.wanted, AuthType.POLKIT)


class ConfigTests(OptionsTestCase):
    """
    C{--config}.
    """

    def test_flagsWin(self) -> None:
        """
        What the command line says wins over the file, and the file over the defaults; places to
        listen at replace all of the file's.
        """
        config = self.config(
            'mode = 2\ninterval = 7\ninsecure = true\n[[listen]]\nendpoint = "unix:/a"\n'
            '[[listen]]\nendpoint = "unix:/b"'
        )
        options = self.parse(config, "--interval=3")
        self.assertEqual(options.policy, Mandatory(KeepAlive(3, 5)))
        self.assertTrue(options["insecure"])
        self.assertEqual(self.descriptions(options), ["unix:/a", "unix:/b"])
        options = self.parse(config, "--mode=0", "--listen=unix:/c")
        self.assertEqual(options.policy, Disable(KeepAlive(7, 5)))
        self.assertEqual(self.descriptions(options), ["unix:/c"])

    def test_mistakes(self) -> None:
        """
        Mistakes name the file and the key.
        """
        for text, words in (
            ("count = 0", "count takes a whole number from 1 up, not 0"),
            ("mod = 1", "there is no key 'mod'; is mode meant?"),
            ("mode = 3", "mode=3: there is no policy '3': it is one of 0, 1, 2"),
            ("mode = ", "is not TOML: "),
            ('except = "users=bob"', "except=users=bob: begins with one of network=, "),
            ('admin = "tcp:1"', "admin=tcp:1: administration is over a UNIX socket only"),
            ('upstream = "/run/sock"', "upstream=/run/sock: is --upstream=unix:/run/sock meant?"),
            (
                '[[listen]]\nendpint = "tcp:0"',
                "[[listen]] has no key 'endpint'; is endpoint meant?",
            ),
            ('[[listen]]\nendpoint = "tcp:x"', "listen=tcp:x: ports and backlogs are numbers"),
        ):
            config = self.config(text)
            self.assertTrue(self.refuse(config).startswith(f"{config}: {words}"), text)
        self.assertIn("--config=/nothere: ", self.refuse("--config=/nothere"))
        # What the command line says is not the file's mistake.
        config = self.config("mode = 1")
        self.assertTrue(self.refuse(config, "--mode=3").startswith("--mode=3: "))

    def test_check(self) -> None:
        """
        C{--check} prints what is in force and where it comes from, as a file that says the same.
        """
        config = self.config('mode = "mandatory"\nupstream = "qemu:///system"')
        text = self.printed(config, "--count=3", "--check")
        self.assertRegex(text, r'(?m)^mode = "mandatory" +# .*/kaserver.toml$')
        self.assertRegex(text, r"(?m)^count = 3 +# --count$")
        self.assertRegex(text, r"(?m)^interval = 5.0 +# default$")
        understood = self.parse(self.config(text))
        self.assertEqual(understood.policy, Mandatory(KeepAlive(5, 3)))
        self.assertEqual(self.descriptions(understood), ["unix:/run/ours/libvirt-sock:mode=660"])
        self.assertNotIn("config", tomllib.loads(text))

    def test_checkMistakes(self) -> None:
        """
        C{--check} finds mistakes as a start does.
        """
        self.assertIn("--interval", self.refuse("--check", "--interval=x"))


class RegistryTests(OptionsTestCase):
    """
    Where the clients of all nodes are listed.
    """

    def test_none(self) -> None:
        """
        By default there is none, and txredisapi is not needed.
        """
        with patch.dict(sys.modules, {"txredisapi": None}):
            self.assertIsNone(self.parse("--node=host1").redis)
            self.assertIn("kaproto[redis]", self.refuse("--registry=redis://localhost"))

    def test_redis(self) -> None:
        """
        There is a URL, and a password's file.
        """
        path = self.folder / "redis"
        path.write_text("secret\n", "utf-8")
        for arguments in (
            ("--registry=redis://localhost", f"--registry-password-file={path}"),
            (f"--registry=redis://localhost?password-file={path}",),
        ):
            redis = self.parse(*arguments).redis
            assert redis is not None
            self.assertEqual((redis[0].host, redis[1].text), ("localhost", "secret"))

    def test_mistakes(self) -> None:
        """
        Mistakes name the flag.
        """
        for arguments, words in (
            (["--node=a/b"], "--node=a/b: a node's name is of letters"),
            (["--registry=localhost"], "--registry: it takes a URL such as redis://HOST"),
            (["--registry=redis://:x@localhost"], "--registry-password-file=PATH"),
            (
                ["--registry=redis://localhost", "--registry-password-file=/nothere"],
                "/nothere: No such file",
            ),
            (["--registry-password-file=/x"], "--registry-password-file without --registry=URL"),
        ):
            self.assertIn(words, self.refuse(*arguments))


class HelpTests(OptionsTestCase):
    """
    What can be asked of the command line.
    """

    def test_help(self) -> None:
        """
        The help names every flag.
        """
        text = self.printed("--help")
        for flag in (*SETTINGS, "help-policies", "help-auth", "version"):
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
