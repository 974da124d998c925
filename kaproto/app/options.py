"""
The command line of C{twistd kaserver}.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from kaproto import __version__
from kaproto.app.config import Config, ConfigError, ListenSettings, readConfig, writeConfig
from kaproto.app.helptext import describe
from kaproto.app.kinds import Flag, Texts
from kaproto.app.listeners import (
    DEFAULT_LISTEN,
    Listener,
    defaultSocket,
    serverEndpoint,
    unixListener,
)
from kaproto.app.logins import Logins
from kaproto.app.makelistener import makeListener
from kaproto.app.operations import adminEndpoint
from kaproto.app.settings import SETTINGS
from kaproto.app.upstreams import upstreamAuthentication, upstreamEndpoint
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Exceptions
from kaproto.policies.plugins import describePolicies, findPolicy
from kaproto.registry.link import MissingExtra, requireExtra
from kaproto.registry.location import BadLocation, Location, Password
from kaproto.registry.schema import NODE_NAME
from kaproto.security.clientauth import Authentication

if TYPE_CHECKING:
    from kaproto.workers.sockets import BindingReactor

__all__ = ["Options"]

_FLAGS: Final = [each for each in SETTINGS.values() if isinstance(each.kind, Flag)]
_LISTS: Final = [each for each in SETTINGS.values() if isinstance(each.kind, Texts)]
_VALUES: Final = [each for each in SETTINGS.values() if each not in (*_FLAGS, *_LISTS)]


class Options(BaseOptions, AuthOptionMixin):
    """
    The settings in force: those of the command line, else of the configuration file, else the
    defaults.

    @ivar policy: how far keepalive goes with each client.
    @ivar basePolicy: the same without exceptions.
    @ivar keepAlive: the interval and count for clients.
    @ivar listeners: where to listen.
    @ivar limits: how many clients, and for how long.
    @ivar upstream: where libvirtd listens, for a gateway.
    @ivar upstreamAuthentication: how the gateway itself authenticates there.
    @ivar upstreamAsk: whether the gateway asks for keepalive there.
    @ivar checkers: the credentials checkers of all listeners.
    @ivar workers: how many processes serve; 0 for this one.
    @ivar binding: what their listeners have bound.
    @ivar admin: where administrators connect.
    @ivar statusPage: where the status is served.
    @ivar agent: where haproxy asks.
    @ivar redis: the registry of all nodes, its password, and what connects to it.
    """

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    synopsis = "[--mode=0|1|2|NAME[:ARGUMENT]] [--listen=ENDPOINT]... [--upstream=ENDPOINT]"
    longdesc = (
        "Serve libvirt's RPC with negotiated keepalive. With mode 2 a client that does not ask "
        "for keepalive is refused when it opens. Try it: virsh -c "
        "test+tcp://127.0.0.1/default hostname"
    )
    # Defaults are filled in later: only what is given on the command line wins over the file.
    optParameters: ClassVar = [[each.name, each.short, None, each.help] for each in _VALUES]
    optFlags: ClassVar = [[each.name, each.short, each.help] for each in _FLAGS]

    policy: IKeepAlivePolicy
    basePolicy: IKeepAlivePolicy
    keepAlive: KeepAlive
    listeners: Sequence[Listener]
    limits: Limits
    upstream: IStreamClientEndpoint | None = None
    upstreamAuthentication: Authentication = Authentication()
    upstreamAsk = True
    workers: int = 0
    binding: BindingReactor | None = None
    admin: IStreamServerEndpoint | None = None
    statusPage: IStreamServerEndpoint | None = None
    agent: IStreamServerEndpoint | None = None
    redis: tuple[Location, Password, IStreamClientEndpoint] | None = None
    _folder: Path | None = None

    def __init__(self, reactor: object | None = None) -> None:
        """
        @param reactor: where the endpoints will listen, by default the reactor.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._origins: dict[str, str] = {}
        self._logins = Logins(self.supportedInterfaces)

    def _append(self, name: str, text: str) -> None:
        self[name] = [*(self.get(name) or ()), text]

    def opt_listen(self, description: str) -> None:
        """
        Add a place to listen at.
        """
        self._append("listen", description)

    opt_l = opt_listen

    def opt_except(self, condition: str) -> None:
        """
        Add an exception from mandatory keepalive.
        """
        self._append("except", condition)

    def opt_auth(self, description: str) -> None:
        """
        Add a way to log in.
        """
        self._append("auth", description)

    def opt_tls_allowed_dn(self, pattern: str) -> None:
        """
        Add a name that certificates may have.
        """
        self._append("tls-allowed-dn", pattern)

    def opt_help_policies(self) -> NoReturn:
        """
        Describe the policies that --mode can choose, and exit.
        """
        sys.stdout.write(describePolicies() + "\n")
        raise SystemExit(0)

    def opt_version(self) -> NoReturn:
        """
        Print kaproto's version and exit.
        """
        sys.stdout.write(f"kaserver (kaproto) {__version__}\n")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """
        @return: what C{--help} prints: the settings in groups.
        """
        return describe(self.longdesc, width or 80)

    def parseOptions(self, options: Iterable[str] | None = None) -> None:
        """
        Parse the command line.

        @raise UsageError: naming the flag, and what it takes.
        @raise SystemExit: instead, with the same message, where a program such as C{twistd} parses
            it, which would print all its own options before the message.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as error:
            text = self._where(str(error))
            if self.parent is None:
                raise UsageError(text) from error
            raise SystemExit(f"kaserver: {text}") from error

    def _where(self, problem: str) -> str:
        """
        @return: the problem, with the file in which the setting is that it names.
        """
        file, name = self.get("config"), re.match("--([a-z-]+)", problem)
        if file is None or name is None or self._origins.get(name[1]) != file:
            return problem
        return f"--config={file}: {problem.removeprefix('--')}"

    def parseArgs(self, *words: str) -> None:
        """
        @raise UsageError: when there are words that belong to no option.
        """
        if words:
            raise UsageError(f"{words[0]!r} belongs to no option: write --OPTION=VALUE")

    def postOptions(self) -> None:
        """
        Check what the settings mean together.

        @raise UsageError: naming the flag, or the file and the key, and what is allowed.
        """
        listen = self._merge()
        self.keepAlive = KeepAlive(self["interval"], self["count"])
        try:
            self.policy = self.basePolicy = findPolicy(self["mode"], self.keepAlive)
        except ValueError as error:
            raise UsageError(f"--mode={self['mode']}: {error}") from error
        if self["except"]:
            try:
                self.policy = Exceptions(self.basePolicy, self["except"])
            except ValueError as error:
                raise UsageError(f"--except={error}") from error
        self.limits = Limits(
            maxClients=self["max-clients"],
            maxAnonymousClients=self["max-anonymous-clients"],
            handshakeTimeout=self["handshake-timeout"],
            loginTimeout=self["auth-timeout"],
            loginTries=self["auth-tries"],
            loginGuesses=self["auth-guesses"],
            failureDelay=self["auth-delay"],
            openTimeout=self["open-timeout"],
        )
        if self["upstream"] is not None:
            try:
                self.upstream = upstreamEndpoint(self._theReactor(), self["upstream"])
                self.upstreamAuthentication = upstreamAuthentication(self["upstream"])
            except ValueError as error:
                raise UsageError(f"--upstream={self['upstream']}: {error}") from error
            self.upstreamAsk = self["upstream-ask"] == "yes" or (
                self["upstream-ask"] == "auto" and not isinstance(self.upstream, UNIXClientEndpoint)
            )
        elif self["forward-identity"]:
            raise UsageError("--forward-identity needs --upstream=ENDPOINT to forward it to")
        listen = listen or [ListenSettings(self._defaultListen())]
        self._listen = listen
        if self["workers"] is not None:
            self._shareListeners(listen)
        self.listeners = [self._listener(each) for each in listen]
        self._checkAllowedNames()
        self.admin = self._operationsEndpoint("admin", adminEndpoint)
        self.statusPage = self._operationsEndpoint("status", serverEndpoint)
        self.agent = self._operationsEndpoint("agent", serverEndpoint)
        self._findRegistry()
        if self["check"]:
            self._print()

    def _merge(self) -> Sequence[ListenSettings]:
        """
        Take from the file what the command line does not say, and the defaults for the rest.

        @return: the places to listen at.
        """
        config = Config()
        try:
            if self["config"] is not None:
                config = readConfig(Path(self["config"]))
        except ConfigError as error:
            raise UsageError(f"--config={error}") from error
        for name, setting in SETTINGS.items():
            given = self.get(name)
            if given not in (None, 0):
                self[name] = self._given(name, given)
                self._origins[name] = f"--{name}"
            elif name in config.values:
                self[name] = config.values[name]
                self._origins[name] = self["config"]
            else:
                self[name] = setting.default
                self._origins[name] = "default"
        if config.listen and not self["listen"]:
            self._origins["listen"] = self["config"]
        return [ListenSettings(each) for each in self["listen"] or ()] or config.listen

    def _given(self, name: str, given: Any) -> object:  # noqa: ANN401 - text, a list or a flag
        if isinstance(SETTINGS[name].kind, Flag):
            # usage.Options has 1 for it.
            return True
        if not isinstance(given, str):
            return given
        try:
            return SETTINGS[name].kind.fromText(given)
        except ValueError as error:
            raise UsageError(f"--{name} {error}") from error

    def _defaultListen(self) -> str:
        if self.upstream is None:
            return DEFAULT_LISTEN
        path = defaultSocket(os.environ, root=os.geteuid() == 0)
        if path is None:
            raise UsageError(
                "--upstream without --listen: there is no folder for the socket, as neither "
                "RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set; name one, such as "
                "--listen=unix:/path/to/libvirt-sock"
            )
        self._folder = path.parent
        return unixListener(path)

    def _listener(self, settings: ListenSettings) -> Listener:
        if settings.auth is None:
            settings = attrs.evolve(settings, auth=self["auth"] or ())
        if settings.tlsAllowedDNs is None:
            settings = attrs.evolve(settings, tlsAllowedDNs=self["tls-allowed-dn"])
        try:
            return makeListener(
                self.binding or self._theReactor(),
                settings,
                self._logins,
                self._folder,
                isGateway=self.upstream is not None,
                insecure=self["insecure"],
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _operationsEndpoint(
        self, name: str, make: Callable[[object, str], IStreamServerEndpoint]
    ) -> IStreamServerEndpoint | None:
        if self[name] is None:
            return None
        try:
            return make(self._theReactor(), self[name])
        except ValueError as error:
            message = str(error).replace("--listen=", f"--{name}=")
            raise UsageError(f"--{name}={self[name]}: {message}") from error

    def _findRegistry(self) -> None:
        node, url, path = self["node"], self["registry"], self["registry-password-file"]
        if node is not None and not NODE_NAME.fullmatch(node):
            raise UsageError(
                f"--node={node}: a node's name is of letters, digits, dots, dashes and "
                "underscores, 64 at most"
            )
        if url is None:
            if path is not None:
                raise UsageError("--registry-password-file without --registry=URL")
            return
        try:
            requireExtra()
            location = Location.parse(url)
            password = location.password(None if path is None else Path(path))
            self.redis = location, password, location.endpoint(self._theReactor())
        except (BadLocation, MissingExtra) as error:
            raise UsageError(f"--registry: {error}") from error

    def _checkAllowedNames(self) -> None:
        if any(each.accessControl.tlsAllowedDNs for each in self.listeners) and not any(
            each.wantsCertificates for each in self.listeners
        ):
            raise UsageError(
                "--tls-allowed-dn without a listener that wants certificates; there is one with "
                "--listen=libvirttls:16514"
            )

    def _shareListeners(self, listen: Sequence[ListenSettings]) -> None:
        from kaproto.workers.sharing import whyNotShared
        from kaproto.workers.sockets import BindingReactor

        given = f"--workers={self['workers']}"
        problem = whyNotShared([each.endpoint for each in listen], self.parent, self["registry"])
        if problem is not None:
            raise UsageError(f"{given}: {problem}")
        self.workers = (
            len(os.sched_getaffinity(0)) if self["workers"] == "auto" else self["workers"]
        )
        self.binding = BindingReactor(self._theReactor(), self.workers, os.environ)

    def configuration(self) -> Config:
        """
        @return: the settings in force, as a configuration file has them.
        """
        values = {
            name: self[name]
            for name, setting in SETTINGS.items()
            if setting.inFile and name != "listen" and self[name] is not None
        }
        return Config(values, self._listen)

    def _print(self) -> NoReturn:
        sys.stdout.write(writeConfig(self.configuration(), self._origins))
        raise SystemExit(0)

    @property
    def checkers(self) -> Sequence[ICredentialsChecker]:
        """
        The credentials checkers of all listeners.
        """
        return self._logins.checkers

    def _theReactor(self) -> object:
        if self._reactor is None:
            from twisted.internet import reactor

            return reactor
        return self._reactor
