"""
Tests for what the command line says about who is let in, in L{kaproto.app.options} and
L{kaproto.app.service}.
"""

from __future__ import annotations

import resource
import signal
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.python.usage import UsageError

from kaproto.app import service as serviceModule
from kaproto.app.options import Options
from kaproto.app.service import KaServer, makeService
from kaproto.limits import Limits
from kaproto.policies.rules import RulesPolicy
from kaproto.security.admission import AccessControl
from kaproto.security.endpoints import TLSServerEndpoint
from kaproto.security.saslclient import Login
from kaproto.security.scram import ScramKeys
from kaproto.security.scramfile import ScramFile
from tests.pki import Authority, distinguished
from tests.support import ClockTestCase

TCP = "--listen=tcp:16509:interface=127.0.0.1"


class AppTestCase(ClockTestCase):
    """
    A test of command lines, with the files that they name.
    """

    def setUp(self) -> None:
        """
        Make the files, and keep the service off the process.
        """
        super().setUp()
        self.clock: MemoryReactorClock = MemoryReactorClock()
        self.patch(resource, "getrlimit", lambda _which: (1024, 4096))
        self.patch(resource, "setrlimit", lambda *_what: None)
        self.patch(serviceModule, "limitEventsPerTurn", lambda _reactor: None)
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.directory = Path(self.mktemp()).absolute()
        self.authority = Authority()
        self.authority.write(str(self.directory), self.authority.issue(distinguished("server")))
        self.tls = f"--listen=libvirttls:16514:pki={self.directory}"
        self.users = self.directory / "users"
        self.users.write_text("alice:sesame\n")
        self.auth = f"--auth=file:{self.users}"

    def parse(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        options = Options(self.clock)
        parse = partial(options.parseOptions, list(arguments))
        parse()
        return options

    def refuse(self, *arguments: str) -> str:
        """
        @return: how a bad command line is refused.
        """
        return str(self.assertRaises(UsageError, self.parse, *arguments))


class OptionsTests(AppTestCase):
    """
    What is allowed, and what is not.
    """

    def test_defaults(self) -> None:
        """
        Unless told otherwise nobody has to log in, and the limits are those of L{Limits}.
        """
        self.assertEqual(self.parse().accessControl, AccessControl())
        self.assertEqual(self.parse().limits, Limits())

    def test_numbers(self) -> None:
        """
        Patience and limits are the command line's.
        """
        limits = self.parse(
            "--auth-timeout=1.5",
            "--auth-tries=2",
            "--auth-delay=0",
            "--max-clients=7",
            "--max-anonymous-clients=8",
            "--open-timeout=2.5",
        ).limits
        self.assertEqual(
            limits,
            Limits(
                loginTimeout=1.5,
                loginTries=2,
                failureDelay=0,
                maxClients=7,
                maxAnonymousClients=8,
                openTimeout=2.5,
            ),
        )

    def test_badNumbers(self) -> None:
        """
        Numbers that make no sense are refused with the name of the flag.
        """
        for flag, value in [
            ("auth-timeout", "0"),
            ("auth-tries", "0"),
            ("auth-delay", "-1"),
            ("max-clients", "x"),
            ("max-anonymous-clients", "1.5"),
        ]:
            self.assertIn(f"--{flag} takes", self.refuse(f"--{flag}={value}"))

    def test_auth(self) -> None:
        """
        Over TLS and UNIX sockets clients can be made to log in.
        """
        for listen in (self.tls, "--listen=unix:/x/y"):
            self.assertIsNotNone(self.parse(self.auth, listen).accessControl.portal)

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
        bad = self.directory / "bad"
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
        self.assertIn("--auth: two checkers", self.refuse(self.auth, self.auth, self.tls))

    def test_memory(self) -> None:
        """
        For a try, names and passwords can be given right there.
        """
        options = self.parse("--auth=memory:alice:sesame:bob:x", "--listen=unix:/x/y")
        self.assertIsNotNone(options.accessControl.portal)

    def test_allowedDNs(self) -> None:
        """
        Patterns for names in certificates are collected.
        """
        options = self.parse("--tls-allowed-dn=CN=a", "--tls-allowed-dn=*,CN=b", self.tls)
        self.assertEqual(options.accessControl.tlsAllowedDNs, ["CN=a", "*,CN=b"])

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
        (self.directory / "CA/cacert.pem").unlink()
        for flag in (self.tls, "--upstream=test+tls://h/default?pkipath=/nothere"):
            message = self.refuse(flag)
            self.assertIn("/cacert.pem: there is no such file", message)
            self.assertNotIn("Error", message)
            self.assertNotIn("endpoint, such as", message)

    def test_upstreamLogin(self) -> None:
        """
        The gateway's own name and password come from a file that the upstream's URI names.
        """
        file = self.directory / "auth.conf"
        uri = f"test+unix:///default?socket=/x/y&authfile={file}"
        self.assertIn("auth.conf: cannot be read", self.refuse(f"--upstream={uri}"))
        file.write_text(
            "[credentials-a]\nauthname=fred\npassword=s\n[auth-libvirt-default]\ncredentials=a\n"
        )
        self.assertEqual(self.parse(f"--upstream={uri}").upstreamLogin, Login("fred", "s"))
        self.assertIsNone(self.parse("--upstream=unix:/x/y").upstreamLogin)


class ServiceTests(AppTestCase):
    """
    The service.
    """

    def makeFrom(self, *arguments: str) -> KaServer:
        """
        Make a service from a command line.
        """
        return makeService(self.parse(*arguments), cast(IReactorTime, self.clock))

    def listening(self, *arguments: str) -> str:
        """
        Start a service.

        @return: what it logs.
        """
        self.makeFrom(*arguments).privilegedStartService()
        return self.logged()[-1]

    def test_admittance(self) -> None:
        """
        The factory asks what the command line says.
        """
        service = self.makeFrom(self.auth, self.tls, "--max-clients=3")
        self.assertIsNotNone(service.factory.accessControl.portal)
        self.assertEqual(service.factory.limits.maxClients, 3)

    def test_upstreamLogin(self) -> None:
        """
        So does the gateway to libvirtd.
        """
        made: list[Any] = []

        def gateway(*arguments: Any, **keywords: Any) -> None:
            made.append(keywords["login"])
            raise ZeroDivisionError

        self.patch(serviceModule, "Gateway", gateway)
        self.assertRaises(ZeroDivisionError, self.makeFrom, "--upstream=unix:/x/y")
        self.assertEqual(made, [None])

    def test_maxClients(self) -> None:
        """
        Unless told otherwise there may be as many clients as there may be open files, of which
        those of a gateway need two each.
        """
        self.assertEqual(self.makeFrom().factory.limits.maxClients, 4032)
        gateway = self.makeFrom("--upstream=unix:/x/y")
        self.assertEqual(gateway.factory.limits.maxClients, 2016)

    def test_maxClientsUnlimited(self) -> None:
        """
        That may be any number.
        """
        unlimited = resource.RLIM_INFINITY
        self.patch(resource, "getrlimit", lambda _which: (1024, unlimited))
        self.assertEqual(self.makeFrom().factory.limits.maxClients, 0)

    def test_exposed(self) -> None:
        """
        With certificates, or with passwords over TLS, other machines may come.
        """
        self.assertIn("listening on tls (up to 1.2) 0.0.0.0:16514", self.listening(self.tls))
        self.assertIn("0.0.0.0:16514", self.listening(f"{self.tls}:verify=no", self.auth))
        self.assertIn("0.0.0.0:16514", self.listening(f"{self.tls}:verify=no", "--insecure"))

    def test_exposedWithoutEither(self) -> None:
        """
        With neither they may not.
        """
        for listen, words in [
            (f"{self.tls}:verify=no", "TLS without client certificates without authentication"),
            ("--listen=tcp:16509", "plain TCP without authentication"),
        ]:
            service = self.makeFrom(listen)
            self.assertIn(words, str(self.assertRaises(SystemExit, service.privilegedStartService)))

    def test_otherTLS(self) -> None:
        """
        Twisted's own TLS is refused, and a PROXY header inside TLS: libvirt's clients speak
        neither.
        """
        for listen, words in [
            ("ssl:443:privateKey=/x", "use libvirttls:PORT"),
            (f"haproxy:libvirttls:16514:pki={self.directory}", "use proxy:libvirttls:PORT"),
        ]:
            self.assertIn(words, self.refuse(f"--listen={listen}"))

    def test_hangUp(self) -> None:
        """
        SIGHUP has everything read again that comes from files, in the reactor's own time.
        """
        rules = self.directory / "rules.toml"
        rules.write_text("[default]\nmode = 1")
        keys = self.directory / "keys"
        keys.write_text(f"alice:{ScramKeys.fromPassword('sesame').toText()}\n")
        service = self.makeFrom(f"--mode=rules:{rules}", f"--auth=scram:{keys}", self.tls)
        reloaded: list[type] = []
        for kind in (RulesPolicy, ScramFile):
            self.patch(kind, "reload", lambda each: reloaded.append(type(each)))
        service.privilegedStartService()
        service.startService()
        calls: list[Any] = []
        vars(self.clock)["callFromThread"] = calls.append
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(reloaded, [])
        calls[0]()
        self.assertEqual(reloaded, [RulesPolicy, ScramFile])
        self.assertEqual(
            self.logged()[1:],
            ["reloaded RulesPolicy", "reloaded ServerContextFactory", "reloaded ScramFile"],
        )
        service.stopService()
        self.clock.advance(10)
        self.assertEqual(self.handlers[signal.SIGHUP], signal.SIG_DFL)

    def test_hangUpFails(self) -> None:
        """
        What cannot be used does not replace what was read before, does not keep the others from
        being read, and is logged.
        """
        rules = self.directory / "rules.toml"
        rules.write_text("[default]\nmode = 1")
        service = self.makeFrom(f"--mode=rules:{rules}", self.tls)
        rules.write_text("[default]\nmode = 9")
        service.reload()
        (line,) = self.logged(LogLevel.error)
        self.assertIn(f"not reloaded, and as it was before: {rules}: default: mode: ", line)
        self.assertEqual(self.logged(LogLevel.info), ["reloaded ServerContextFactory"])

    def test_endpoints(self) -> None:
        """
        What listens with TLS is known to.
        """
        ((_description, endpoint),) = self.parse(self.tls).endpoints
        self.assertIsInstance(endpoint, TLSServerEndpoint)
