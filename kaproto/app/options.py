"""
The command line of C{twistd kaserver}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from kaproto import __version__
from kaproto.app.config import Config, ListenSettings
from kaproto.app.helptext import describe
from kaproto.app.kinds import Flag, Texts
from kaproto.app.listeners import Listener, serverEndpoint
from kaproto.app.logins import Logins
from kaproto.app.makelistener import defaultPlace, makeListeners
from kaproto.app.operations import adminEndpoint
from kaproto.app.registries import checkNode, redisAt
from kaproto.app.settings import SETTINGS
from kaproto.app.sources import Sources
from kaproto.app.upstreams import UpstreamServer, upstreamServer
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Exceptions
from kaproto.policies.plugins import describePolicies, findPolicy
from kaproto.registry.location import Location, Password

if TYPE_CHECKING:
    from kaproto.workers.sockets import BindingReactor

__all__ = ["Options"]

_FLAGS: Final = [each for each in SETTINGS.values() if isinstance(each.kind, Flag)]
_LISTS: Final = [each for each in SETTINGS.values() if isinstance(each.kind, Texts)]
_VALUES: Final = [each for each in SETTINGS.values() if each not in (*_FLAGS, *_LISTS)]


def _repeatable(name: str) -> Callable[[Options, str], None]:
    """
    @return: the handler of a repeatable flag.
    """

    def append(self: Options, text: str) -> None:
        self[name] = [*(self.get(name) or ()), text]

    append.__doc__ = SETTINGS[name].help
    return append


class Options(BaseOptions, AuthOptionMixin):
    """
    The effective settings.  The command line has precedence over the configuration file, and the
    file over the defaults.

    @ivar policy: the keepalive policy, with its exceptions.
    @ivar basePolicy: the keepalive policy without its exceptions.
    @ivar keepAlive: the interval and count for clients.
    @ivar listeners: the listeners for clients.
    @ivar limits: the limits on clients, in number and time.
    @ivar upstream: the gateway's libvirtd; C{None} for the embedded host.
    @ivar checkers: the credentials checkers of all listeners.
    @ivar workers: the number of worker processes; 0 to serve in this process.
    @ivar binding: the sockets bound for the workers' listeners.
    @ivar admin: the endpoint for administrators.
    @ivar statusPage: the endpoint of the status page.
    @ivar agent: the endpoint for haproxy's agent-check.
    @ivar redis: the location of Redis, its password, and its endpoint; C{None} for no registry.
    """

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    synopsis = "[--mode=0|1|2|NAME[:ARGUMENT]] [--listen=ENDPOINT]... [--upstream=ENDPOINT]"
    longdesc = (
        "Serve libvirt's RPC with negotiated keepalive. With mode 2 a client that does not ask "
        "for keepalive is refused when it opens. Try it: virsh -c "
        "test+tcp://127.0.0.1/default hostname"
    )
    # The defaults are filled in later, so that they do not override the configuration file.
    optParameters: ClassVar = [[each.name, each.short, None, each.help] for each in _VALUES]
    optFlags: ClassVar = [[each.name, each.short, each.help] for each in _FLAGS]

    policy: IKeepAlivePolicy
    basePolicy: IKeepAlivePolicy
    keepAlive: KeepAlive
    listeners: Sequence[Listener]
    limits: Limits
    upstream: UpstreamServer | None = None
    workers: int = 0
    binding: BindingReactor | None = None
    admin: IStreamServerEndpoint | None = None
    statusPage: IStreamServerEndpoint | None = None
    agent: IStreamServerEndpoint | None = None
    redis: tuple[Location, Password, IStreamClientEndpoint] | None = None
    _listen: Sequence[ListenSettings] = ()

    opt_listen = opt_l = _repeatable("listen")
    opt_except = _repeatable("except")
    opt_auth = _repeatable("auth")
    opt_tls_allowed_dn = _repeatable("tls-allowed-dn")

    def __init__(self, reactor: object | None = None) -> None:
        """
        @param reactor: the reactor on which the endpoints listen; by default the global one.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._sources = Sources()
        self._logins = Logins(self.supportedInterfaces)

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
        @return: the text of C{--help}: the settings in groups.
        """
        return describe(self.longdesc, width or 80)

    def parseOptions(self, options: Iterable[str] | None = None) -> None:
        """
        Parse the command line.

        @raise UsageError: naming the flag, and its valid values.
        @raise SystemExit: with the same message, when a program such as C{twistd} runs this.  On a
            L{UsageError} the program would print all its own options before the message.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as error:
            text = self._sources.locate(str(error))
            if self.parent is None:
                raise UsageError(text) from error
            raise SystemExit(f"kaserver: {text}") from error

    def parseArgs(self, *words: str) -> None:
        """
        @raise UsageError: when there are positional arguments.
        """
        if words:
            raise UsageError(f"unexpected argument {words[0]!r}: write --OPTION=VALUE")

    def postOptions(self) -> None:
        """
        Check the combination of all settings.

        @raise UsageError: naming the flag, or the file and the key, and the valid values.
        """
        try:
            self._interpret()
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self["check"]:
            sys.stdout.write(self._sources.written(self.configuration()))
            raise SystemExit(0)

    def _interpret(self) -> None:
        """
        @raise ValueError: naming the flag.
        """
        self.update(self._sources.merge(self))
        self._choosePolicy()
        limits = {each.limit: self[each.name] for each in SETTINGS.values() if each.limit}
        self.limits = Limits(**limits)
        reactor = self._theReactor()
        if self["upstream"] is not None:
            self.upstream = upstreamServer(reactor, self["upstream"], self["upstream-ask"])
        elif self["forward-identity"]:
            raise ValueError("--forward-identity needs --upstream=ENDPOINT to forward it to")
        self._chooseListeners()
        self.admin = self._operationsEndpoint("admin", adminEndpoint)
        self.statusPage = self._operationsEndpoint("status", serverEndpoint)
        self.agent = self._operationsEndpoint("agent", serverEndpoint)
        checkNode(self["node"])
        self.redis = redisAt(reactor, self["registry"], self["registry-password-file"])

    def _choosePolicy(self) -> None:
        self.keepAlive = KeepAlive(self["interval"], self["count"])
        try:
            self.policy = self.basePolicy = findPolicy(self["mode"], self.keepAlive)
        except ValueError as error:
            raise ValueError(f"--mode={self['mode']}: {error}") from error
        if self["except"]:
            try:
                self.policy = Exceptions(self.basePolicy, self["except"])
            except ValueError as error:
                raise ValueError(f"--except={error}") from error

    def _chooseListeners(self) -> None:
        isGateway, folder = self.upstream is not None, None
        self._listen = self._sources.listen
        if not self._listen:
            root = os.geteuid() == 0
            place, folder = defaultPlace(os.environ, root=root, isGateway=isGateway)
            self._listen = [place]
        if self["workers"] is not None:
            self._shareListeners(self._listen)
        self.listeners = makeListeners(
            self.binding or self._theReactor(),
            self._listen,
            ListenSettings("", self["auth"], self["tls-allowed-dn"]),
            self._logins,
            folder=folder,
            isGateway=isGateway,
            insecure=self["insecure"],
        )

    def _shareListeners(self, listen: Sequence[ListenSettings]) -> None:
        from kaproto.workers.sharing import whyNotShared
        from kaproto.workers.sockets import BindingReactor

        given = f"--workers={self['workers']}"
        problem = whyNotShared([each.endpoint for each in listen], self.parent)
        if problem is not None:
            raise ValueError(f"{given}: {problem}")
        self.workers = (
            len(os.sched_getaffinity(0)) if self["workers"] == "auto" else self["workers"]
        )
        self.binding = BindingReactor(self._theReactor(), self.workers, os.environ)

    def _operationsEndpoint(
        self, name: str, make: Callable[[object, str], IStreamServerEndpoint]
    ) -> IStreamServerEndpoint | None:
        if self[name] is None:
            return None
        try:
            return make(self._theReactor(), self[name])
        except ValueError as error:
            message = str(error).replace("--listen=", f"--{name}=")
            raise ValueError(f"--{name}={self[name]}: {message}") from error

    def configuration(self) -> Config:
        """
        @return: the effective settings, in the form of a configuration file.
        """
        values = {
            name: self[name]
            for name, setting in SETTINGS.items()
            if setting.inFile and name != "listen" and self[name] is not None
        }
        return Config(values, self._listen)

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
