"""
The settings of kaserver.  Each is a command-line flag and a key of the configuration file.

To add a setting, add it to L{GROUPS}: C{--help}, C{--check} and the configuration file use that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from kaproto.app.kinds import Choice, Flag, Kind, Mode, Seconds, Text, Texts, Whole, WholeOr
from kaproto.app.logs import FORMATS
from kaproto.keepalive.kernelwatch import CHOICES
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.registry.orders import ORDERS

__all__ = ["GROUPS", "SETTINGS", "Setting"]


@attrs.frozen
class Setting:
    """
    One setting.

    @ivar name: the flag's name without leading dashes, which is also the key.
    @ivar kind: its type.
    @ivar help: its text in C{--help}.
    @ivar default: its default; C{None} if it has none, or one that is determined later.
    @ivar short: a one-letter flag.
    @ivar inFile: whether the configuration file may set it.
    @ivar limit: the field of L{Limits} that it sets, if any.
    """

    name: str
    kind: Kind
    help: str
    default: object = None
    short: str | None = None
    inFile: bool = True
    limit: str | None = None


def _limit(name: str, field: str, kind: Kind, text: str) -> Setting:
    return Setting(name, kind, text, default=getattr(Limits(), field), limit=field)


GROUPS: Final[Mapping[str, Sequence[Setting]]] = {
    "Keepalive": (
        Setting(
            "mode",
            Mode(),
            "0 or disable: ping no clients. 1 or optional: ping those that ask for keepalive. 2 or "
            "mandatory: also refuse the others when they open. --help-policies lists more.",
            default="0",
            short="m",
        ),
        Setting(
            "interval",
            Seconds(0.05),
            "Seconds of silence from a client before it is pinged.",
            default=float(KeepAlive().interval),
            short="i",
        ),
        Setting(
            "count",
            Whole(1),
            "Unanswered pings after which a client is dead, interval * (count + 1) seconds after "
            "it was last heard.",
            default=KeepAlive().count,
            short="c",
        ),
        Setting(
            "except",
            Texts(),
            "Admit clients that do not ask for keepalive, if they match this condition: "
            "program=virt-install, user=NAME, dn=NAME, network=ADDRESS, transport=unix. "
            "Repeatable.",
        ),
        Setting(
            "tcp-keepalive",
            Choice(CHOICES),
            "Use the kernel's TCP keepalive, with the same interval and count, for clients and "
            "libvirtd. auto: in modes 1 and 2, for those that cannot be pinged. on: for all. off: "
            "for none.",
            default="auto",
        ),
    ),
    "Listening": (
        Setting(
            "listen",
            Texts(),
            "Where to listen: a Twisted server endpoint; with :readonly=yes its connections are "
            "read-only. Repeatable. The default is tcp:16509:interface=127.0.0.1; with --upstream "
            "it is a UNIX socket libvirt-sock, for its owner and its group, in $RUNTIME_DIRECTORY, "
            "/run/kaserver (root) or $XDG_RUNTIME_DIR/kaserver.",
            short="l",
        ),
        Setting(
            "insecure",
            Flag(),
            "Serve unauthenticated clients also on TCP addresses that other machines can reach, "
            "and in front of --upstream.",
            default=False,
        ),
    ),
    "Who may connect": (
        Setting(
            "auth",
            Texts(),
            "Have clients log in (SASL), over TLS and UNIX sockets: file:PATH for a file of "
            "NAME:PASSWORD lines, scram:PATH for salted keys, or another that --help-auth lists.",
        ),
        Setting(
            "tls-allowed-dn",
            Texts(),
            "Accept only TLS clients whose certificate has a matching name, such as "
            "'C=GB,O=Example,CN=*'. Repeatable.",
        ),
    ),
    "Gateway": (
        Setting(
            "upstream",
            Text(),
            "Be a gateway to the libvirtd that listens there: a Twisted client endpoint such as "
            "unix:/run/libvirt/libvirt-sock, or a libvirt URI such as qemu:///system.",
            short="u",
        ),
        Setting(
            "upstream-interval",
            Seconds(),
            "Seconds of silence from libvirtd before it is pinged; 0 for never, where storage may "
            "hang for minutes (NFS).",
            default=10.0,
        ),
        Setting(
            "upstream-count",
            Whole(0),
            "Unanswered pings after which libvirtd is dead; 0 to never ping it.",
            default=5,
        ),
        Setting(
            "upstream-ask",
            Choice(("auto", "yes", "no")),
            "Whether to ask libvirtd for keepalive. If asked, it notices a dead gateway, and drops "
            "connections with max_client_requests calls under way; auto does not ask on a UNIX "
            "socket. A kaserver in mode 2 has to be asked.",
            default="auto",
        ),
        Setting(
            "upstream-timeout",
            Seconds(0.1),
            "Seconds that libvirtd has to accept a connection and open it.",
            default=10.0,
        ),
        Setting(
            "forward-identity",
            Flag(),
            "Tell libvirtd who each client is: its SASL user, TLS name or UNIX user.",
            default=False,
        ),
    ),
    "Limits": (
        _limit(
            "max-clients",
            "maxClients",
            Whole(0),
            "Connections at a time; 0 for as many as open files allow.",
        ),
        _limit(
            "max-anonymous-clients",
            "maxAnonymousClients",
            Whole(0),
            "Connections at a time that have not finished the TLS handshake or not logged in; one "
            "more closes the oldest of them. 0 for any number.",
        ),
        _limit(
            "handshake-timeout",
            "handshakeTimeout",
            Seconds(0.1),
            "Seconds that a client has for the TLS handshake.",
        ),
        _limit(
            "auth-timeout",
            "loginTimeout",
            Seconds(0.1),
            "Seconds that a client has to log in; a user may be typing a password.",
        ),
        _limit(
            "auth-tries",
            "loginTries",
            Whole(1),
            "Failed logins after which a connection is closed.",
        ),
        _limit(
            "auth-guesses",
            "loginGuesses",
            Whole(1),
            "Failed logins from one network, or for one user name, within a minute. Further ones "
            "are checked one by one, --auth-delay apart; only users who have logged in from that "
            "network within a day do not wait. Raise it for clients behind one address.",
        ),
        _limit(
            "auth-delay", "failureDelay", Seconds(), "Seconds until a failed login is answered."
        ),
        _limit(
            "open-timeout",
            "openTimeout",
            Seconds(0.1),
            "Seconds from connecting, or from logging in, until a client has opened.",
        ),
    ),
    "Operations": (
        Setting(
            "grace",
            Seconds(),
            "Seconds that running calls have to finish when the server stops.",
            default=5.0,
        ),
        Setting(
            "drain-timeout",
            Seconds(),
            "Seconds that clients have to leave when the server is drained (SIGUSR2): it accepts "
            "no new ones, and stops when the last has left.",
            default=300.0,
        ),
        Setting(
            "workers",
            WholeOr(Whole(1), "auto"),
            "How many processes serve; auto for one for each processor. They are watched, replaced "
            "when they end, and administered as one. By default one process serves alone.",
        ),
        Setting(
            "admin",
            Text(),
            "Be administered by virt-admin and kaproto: the path of a UNIX socket for root and the "
            "user of this process, such as /run/kaserver/admin-sock, or one that systemd passes, "
            "systemd:domain=UNIX:name=admin.",
        ),
        Setting(
            "status",
            Text(),
            "Serve a status page, /metrics for Prometheus, /livez and /readyz over HTTP: a Twisted "
            "server endpoint such as unix:/run/kaserver/status or tcp:9164:interface=127.0.0.1. "
            "Nothing can be changed there.",
        ),
        Setting(
            "agent",
            Text(),
            "Tell haproxy whether to send clients here (agent-check): up, drain while the server "
            "is drained, down with the reason while libvirtd cannot be opened. A Twisted server "
            "endpoint such as tcp:9165.",
        ),
        Setting(
            "registry",
            Text(),
            "List the clients in Redis, beside those of other kaservers, for kaproto --registry: "
            "redis://[USER@]HOST[:PORT][/DATABASE], or rediss: for TLS, with "
            "?ca=PATH&cert=PATH&key=PATH if needed. Clients are not affected when Redis is down.",
        ),
        Setting(
            "registry-password-file", Text(), "Log in to Redis with the first line of this file."
        ),
        Setting(
            "registry-orders",
            Choice(ORDERS),
            "Which orders to accept from Redis, where anyone with write access can give them: "
            "all (to disconnect clients, to drain), disconnect, or none.",
            default=ORDERS[0],
        ),
        Setting("node", Text(), "This kaserver's own name in the registry; by default the host's."),
        Setting(
            "log-format",
            Choice(FORMATS),
            "Format of the log: text, or json, one object per line. The default is text; under "
            "twist, that of its own --log-format.",
        ),
        Setting("config", Text(), "Read settings from this file (TOML). Flags win.", inFile=False),
        Setting(
            "check",
            Flag(),
            "Print the settings in force, as a configuration file, and exit.",
            default=False,
            inFile=False,
        ),
    ),
}
"""
The settings, by their headings in C{--help}.
"""

SETTINGS: Final[Mapping[str, Setting]] = {
    each.name: each for group in GROUPS.values() for each in group
}
"""
The settings by name, in the order of C{--help}.
"""
