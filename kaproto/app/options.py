"""
The command line of C{twistd kaserver}.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Final

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import (
    AuthOptionMixin,
    InvalidAuthType,
    UnsupportedInterfaces,
)
from twisted.internet.endpoints import UNIXClientEndpoint, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from kaproto import __version__
from kaproto.client import endpointFor
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import INTERVAL_MAX, KeepAlive
from kaproto.limits import Limits
from kaproto.policies.plugins import describePolicies, findPolicy
from kaproto.security.admission import AccessControl
from kaproto.security.authfile import loginFor
from kaproto.security.authplugin import makeChecker
from kaproto.security.certificates import PKIError
from kaproto.security.endpoints import TLSServerEndpoint, transportOf, whyNotServed
from kaproto.security.saslclient import Login
from kaproto.security.saslserver import makePortal

__all__ = ["DEFAULT_LISTEN", "Options"]

_BACKLOG: Final = 1024

DEFAULT_LISTEN: Final = f"tcp:16509:interface=127.0.0.1:backlog={_BACKLOG}"
"""
Where to listen unless told: libvirt's TCP port, on this machine only.
"""

_Coerce = Callable[[str], object]


def _seconds(flag: str, least: float) -> _Coerce:
    def coerce(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= INTERVAL_MAX:
            raise ValueError(
                f"--{flag} takes a number of seconds from {least:g} to {INTERVAL_MAX}, not {text!r}"
            )
        return value

    return coerce


def _whole(flag: str, least: int) -> _Coerce:
    def coerce(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise ValueError(f"--{flag} takes a whole number from {least} up, not {text!r}")
        return int(text)

    return coerce


def _choice(flag: str, *words: str) -> _Coerce:
    def coerce(text: str) -> str:
        if text not in words:
            raise ValueError(f"--{flag} takes {', '.join(words[:-1])} or {words[-1]}, not {text!r}")
        return text

    return coerce


_SHORTEST: Final = 0.05

_KEEPALIVE: Final = KeepAlive()
_LIMITS: Final = Limits()


class Options(BaseOptions, AuthOptionMixin):
    """
    What the command line says, checked: C{policy}, C{endpoints} and the numbers.
    """

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    synopsis = "[--mode=0|1|2|NAME[:ARGUMENT]] [--listen=ENDPOINT]... [--upstream=ENDPOINT]"
    longdesc = (
        "Serve libvirt's RPC with negotiated keepalive. With mode 2 a client that does not ask "
        "for keepalive is refused when it opens. Try it: virsh -c "
        "test+tcp://127.0.0.1/default hostname"
    )

    optParameters = [
        [
            "mode",
            "m",
            "0",
            "How far keepalive goes: 0 or disable, 1 or optional, 2 or mandatory, or the name of "
            "another policy, see --help-policies.",
        ],
        [
            "interval",
            "i",
            float(_KEEPALIVE.interval),
            "Seconds of silence from a client before it is pinged.",
            _seconds("interval", _SHORTEST),
        ],
        [
            "count",
            "c",
            _KEEPALIVE.count,
            "Pings left unanswered before a client is dead, interval * (count + 1) seconds after "
            "it was last heard.",
            _whole("count", 1),
        ],
        [
            "open-timeout",
            None,
            _LIMITS.openTimeout,
            "Seconds a client has from connecting until it has opened.",
            _seconds("open-timeout", 0.1),
        ],
        [
            "auth-timeout",
            None,
            _LIMITS.loginTimeout,
            "Seconds a client has for its TLS handshake, and as many again to log in.",
            _seconds("auth-timeout", 0.1),
        ],
        [
            "auth-tries",
            None,
            _LIMITS.loginTries,
            "How often a connection may fail to log in.",
            _whole("auth-tries", 1),
        ],
        [
            "auth-delay",
            None,
            _LIMITS.failureDelay,
            "Seconds after which a failure to log in is answered.",
            _seconds("auth-delay", 0),
        ],
        [
            "max-clients",
            None,
            _LIMITS.maxClients,
            "How many clients there may be; 0 for as many as there may be open files.",
            _whole("max-clients", 0),
        ],
        [
            "max-anonymous-clients",
            None,
            _LIMITS.maxAnonymousClients,
            "How many clients there may be that are not known yet. The one that has been at it "
            "longest goes when there is one too many; 0 for any number.",
            _whole("max-anonymous-clients", 0),
        ],
        [
            "upstream",
            "u",
            None,
            "Be a gateway to the libvirtd that listens there: a Twisted client endpoint such as "
            "unix:/run/libvirt/libvirt-sock, or a libvirt URI such as qemu:///system.",
        ],
        [
            "upstream-interval",
            None,
            10.0,
            "Seconds of silence from libvirtd before it is pinged; 0 for never, for sites with "
            "storage that may hang for minutes (NFS).",
            _seconds("upstream-interval", 0),
        ],
        [
            "upstream-count",
            None,
            5,
            "Pings left unanswered before libvirtd is dead; 0 for never pinging it.",
            _whole("upstream-count", 0),
        ],
        [
            "upstream-ask",
            None,
            "auto",
            "Whether to ask libvirtd for keepalive: auto, yes or no. If asked, it notices a dead "
            "gateway, and drops connections with max_client_requests calls under way; auto does "
            "not ask on a UNIX socket. A kaserver in mode 2 has to be asked.",
            _choice("upstream-ask", "auto", "yes", "no"),
        ],
        [
            "grace",
            None,
            5.0,
            "Seconds that calls being answered have to finish when the server is stopped.",
            _seconds("grace", 0),
        ],
    ]
    optFlags = [
        [
            "forward-identity",
            None,
            "Tell the libvirtd behind --upstream who each client is: its SASL user, TLS name or "
            "UNIX user.",
        ],
        [
            "insecure",
            None,
            "Allow plain TCP without authentication on addresses other than loopback.",
        ],
    ]

    policy: IKeepAlivePolicy
    accessControl: AccessControl
    limits: Limits
    upstream: IStreamClientEndpoint | None = None
    upstreamLogin: Login | None = None
    upstreamAsk: bool = True
    endpoints: list[tuple[str, IStreamServerEndpoint]]

    def __init__(self, reactor: object | None = None) -> None:
        """
        @param reactor: where the endpoints will listen, by default the reactor.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self["listen"] = []
        self["tls-allowed-dn"] = []

    def opt_listen(self, description: str) -> None:
        """
        Listen on this Twisted server endpoint, by default
        tcp:16509:interface=127.0.0.1:backlog=1024. May be given several times.
        """
        self["listen"].append(description)

    opt_l = opt_listen

    def opt_auth(self, description: str) -> None:
        """
        Have clients log in (SASL): file:PATH for a file of NAME:PASSWORD lines, scram:PATH for
        one of salted keys, or another that --help-auth lists. Over TLS and UNIX sockets only.
        """
        kind = description.partition(":")[0]
        try:
            self.addChecker(makeChecker(description))  # type: ignore[no-untyped-call]
        except InvalidAuthType as error:
            raise UsageError(
                f"--auth={kind}: there is no such checker; --help-auth lists them"
            ) from error
        except UnsupportedInterfaces as error:
            raise UsageError(f"--auth={kind}: it does not check passwords") from error
        except Exception as error:
            raise UsageError(f"--auth={kind}: {error}") from error

    def opt_tls_allowed_dn(self, pattern: str) -> None:
        """
        Let in only those TLS clients whose certificate has a name like this, such as
        "C=GB,O=Example,CN=*". May be given several times.
        """
        self["tls-allowed-dn"].append(pattern)

    def opt_help_policies(self) -> None:
        """
        Describe the policies that --mode can choose, and exit.
        """
        sys.stdout.write(describePolicies() + "\n")
        raise SystemExit(0)

    def opt_version(self) -> None:
        """
        Print kaproto's version and exit.
        """
        sys.stdout.write(f"kaserver (kaproto) {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """
        Check what the parts mean together.

        @raise UsageError: naming the flag, and what it takes.
        """
        keepAlive = KeepAlive(self["interval"], self["count"])
        try:
            self.policy = findPolicy(self["mode"], keepAlive)
        except ValueError as error:
            raise UsageError(f"--mode={self['mode']}: {error}") from error
        self.keepAlive = keepAlive
        self.endpoints = [
            (description, self._endpoint(description))
            for description in self["listen"] or [DEFAULT_LISTEN]
        ]

        self.accessControl = self._accessControl()
        self.limits = Limits(
            maxClients=self["max-clients"],
            maxAnonymousClients=self["max-anonymous-clients"],
            loginTimeout=self["auth-timeout"],
            loginTries=self["auth-tries"],
            failureDelay=self["auth-delay"],
            openTimeout=self["open-timeout"],
        )
        if self["upstream"] is not None:
            self.upstream = self._upstreamEndpoint(self["upstream"])
            self.upstreamLogin = self._upstreamLogin(self["upstream"])
            self.upstreamAsk = self["upstream-ask"] == "yes" or (
                self["upstream-ask"] == "auto" and not isinstance(self.upstream, UNIXClientEndpoint)
            )
        elif self["forward-identity"]:
            raise UsageError("--forward-identity needs --upstream=ENDPOINT to forward it to")

    def _accessControl(self) -> AccessControl:
        portal = None
        if self.get("credCheckers"):
            try:
                portal = makePortal(self["credCheckers"])
            except ValueError as error:
                raise UsageError(f"--auth: {error}") from error
            for description, _endpoint in self.endpoints:
                if transportOf(description) == "tcp":
                    raise UsageError(
                        f"--auth with --listen={description}: libvirt's clients give no password "
                        "over plain TCP; listen with TLS, --listen=libvirttls:16514, or on a UNIX "
                        "socket"
                    )
        patterns = self["tls-allowed-dn"] or None
        verifying = [
            endpoint
            for _description, endpoint in self.endpoints
            if isinstance(endpoint, TLSServerEndpoint) and endpoint.contextFactory.verify
        ]
        if patterns and not verifying:
            raise UsageError(
                "--tls-allowed-dn without a listener that wants certificates; there is one with "
                "--listen=libvirttls:16514"
            )
        return AccessControl(portal, patterns)

    def _theReactor(self) -> object:
        if self._reactor is None:
            from twisted.internet import reactor

            return reactor
        return self._reactor

    def _upstreamEndpoint(self, description: str) -> IStreamClientEndpoint:
        try:
            return endpointFor(self._theReactor(), description)[0]
        except PKIError as error:
            raise UsageError(f"--upstream={description}: {error}") from error
        except Exception as error:
            raise UsageError(
                f"--upstream={description}: {type(error).__name__}: {error}; it takes a Twisted "
                "client endpoint, such as unix:/run/libvirt/libvirt-sock, or a libvirt URI, such "
                "as qemu:///system"
            ) from error

    def _upstreamLogin(self, description: str) -> Login | None:
        try:
            return loginFor(description)
        except ValueError as error:
            raise UsageError(f"--upstream={description}: {error}") from error

    def _endpoint(self, description: str) -> IStreamServerEndpoint:
        problem = whyNotServed(description)
        if problem is not None:
            raise UsageError(f"--listen={description}: {problem}")
        kind, colon, rest = description.removeprefix("haproxy:").partition(":")
        if kind == "unix" and colon and not rest.partition(":")[0]:
            raise UsageError(
                f"--listen={description}: it takes a path, such as unix:/run/kaserver.sock"
            )
        more = ""
        if description.startswith(("tcp:", "tcp6:", "unix:")) and ":backlog=" not in description:
            more = f":backlog={_BACKLOG}"
        if kind == "unix" and colon and ":lockfile=" not in description:
            # See kaproto.app.stalesocket.
            more += ":lockfile=0"
        try:
            return IStreamServerEndpoint(serverFromString(self._theReactor(), description + more))
        except PKIError as error:
            raise UsageError(f"--listen={description}: {error}") from error
        except Exception as error:
            if kind == "systemd" and isinstance(error, KeyError):
                raise UsageError(
                    f"--listen={description}: systemd has passed no socket named {error}; the "
                    "name is what the socket's unit has in FileDescriptorName=, and without "
                    "systemd there is none"
                ) from error
            raise UsageError(
                f"--listen={description}: {type(error).__name__}: {error}; it takes a Twisted "
                f"server endpoint, such as {DEFAULT_LISTEN} or unix:/run/kaserver.sock"
            ) from error
