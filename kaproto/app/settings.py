"""
The settings of kaserver.  Each is a flag of the command line and a key of the configuration file.

To add one, add a line to L{SETTINGS}: it appears in C{--help}, in C{--check} and in the
configuration file by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
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

    @ivar name: the flag's name, without dashes before it, which is also the key's.
    @ivar group: the heading in C{--help} that it stands under, one of L{GROUPS}.
    @ivar kind: what it takes.
    @ivar default: its value unless it is set; C{None} if that depends.
    @ivar help: what C{--help} says.
    @ivar short: a letter that stands for it.
    @ivar inFile: whether the configuration file may set it.
    """

    name: str
    group: str
    kind: Kind
    default: object
    help: str
    short: str | None = None
    inFile: bool = True


GROUPS: Final = (
    "Keepalive",
    "Listening",
    "Who may connect",
    "Gateway",
    "Limits",
    "Operations",
)
_KEEPALIVE, _LISTENING, _ACCESS, _GATEWAY, _LIMITS, _OPERATIONS = GROUPS

_DEFAULT: Final = Limits()

SETTINGS: Final[Mapping[str, Setting]] = {
    each.name: each
    for each in (
        Setting(
            "mode",
            _KEEPALIVE,
            Mode(),
            "0",
            "0 or disable: clients are not pinged. 1 or optional: those that can be pinged are. 2 "
            "or mandatory: the others are refused when they open. Or another policy: see "
            "--help-policies.",
            "m",
        ),
        Setting(
            "interval",
            _KEEPALIVE,
            Seconds(0.05),
            float(KeepAlive().interval),
            "Seconds of silence from a client before it is pinged.",
            "i",
        ),
        Setting(
            "count",
            _KEEPALIVE,
            Whole(1),
            KeepAlive().count,
            "Unanswered pings after which a client is dead: interval * (count + 1) seconds after "
            "it was last heard.",
            "c",
        ),
        Setting(
            "except",
            _KEEPALIVE,
            Texts(),
            None,
            "Let clients open that did not ask for keepalive, and do not ping them: "
            "program=virt-install, user=NAME, dn=NAME, network=ADDRESS or transport=unix. May be "
            "given several times.",
        ),
        Setting(
            "tcp-keepalive",
            _KEEPALIVE,
            Choice(CHOICES),
            "auto",
            "Whom the kernel watches over TCP, with the interval and the count, libvirtd included. "
            "auto: in modes 1 and 2, whoever cannot be pinged. on: everybody. off: nobody.",
        ),
        Setting(
            "listen",
            _LISTENING,
            Texts(),
            None,
            "Where to listen: a Twisted server endpoint; with :readonly=yes all connections there "
            "are read-only. May be given several times. The default "
            "is tcp:16509:interface=127.0.0.1, and with --upstream a UNIX socket named "
            "libvirt-sock, for its owner and its group, in $RUNTIME_DIRECTORY, or in /run/kaserver "
            "(root), or in $XDG_RUNTIME_DIR/kaserver.",
            "l",
        ),
        Setting(
            "insecure",
            _LISTENING,
            Flag(),
            False,
            "Serve clients that nobody has authenticated also over TCP that other machines can "
            "reach, and in front of --upstream.",
        ),
        Setting(
            "auth",
            _ACCESS,
            Texts(),
            None,
            "Have clients log in (SASL), over TLS and UNIX sockets: file:PATH for a file of "
            "NAME:PASSWORD lines, scram:PATH for one of salted keys, or another that --help-auth "
            "lists.",
        ),
        Setting(
            "tls-allowed-dn",
            _ACCESS,
            Texts(),
            None,
            "Accept only TLS clients whose certificate has a name that matches, such as "
            "'C=GB,O=Example,CN=*'. May be given several times.",
        ),
        Setting(
            "upstream",
            _GATEWAY,
            Text(),
            None,
            "Be a gateway to the libvirtd that listens there: a Twisted client endpoint such as "
            "unix:/run/libvirt/libvirt-sock, or a libvirt URI such as qemu:///system.",
            "u",
        ),
        Setting(
            "upstream-interval",
            _GATEWAY,
            Seconds(),
            10.0,
            "Seconds of silence from libvirtd before it is pinged; 0 for never, where storage may "
            "hang for minutes (NFS).",
        ),
        Setting(
            "upstream-count",
            _GATEWAY,
            Whole(0),
            5,
            "Unanswered pings after which libvirtd is dead; 0 to never ping it.",
        ),
        Setting(
            "upstream-ask",
            _GATEWAY,
            Choice(("auto", "yes", "no")),
            "auto",
            "Whether to ask libvirtd for keepalive. If asked, it notices a dead gateway, and drops "
            "connections with max_client_requests calls under way; auto does not ask on a UNIX "
            "socket. A kaserver in mode 2 has to be asked.",
        ),
        Setting(
            "upstream-timeout",
            _GATEWAY,
            Seconds(0.1),
            10.0,
            "Seconds that libvirtd has to accept a connection and open it.",
        ),
        Setting(
            "forward-identity",
            _GATEWAY,
            Flag(),
            False,
            "Tell libvirtd who each client is: its SASL user, TLS name or UNIX user.",
        ),
        Setting(
            "max-clients",
            _LIMITS,
            Whole(0),
            _DEFAULT.maxClients,
            "Connections at a time; 0 for as many as open files allow.",
        ),
        Setting(
            "max-anonymous-clients",
            _LIMITS,
            Whole(0),
            _DEFAULT.maxAnonymousClients,
            "Connections at a time that have not finished the TLS handshake or not logged in. One "
            "more, and the oldest of them is closed. 0 for any number.",
        ),
        Setting(
            "handshake-timeout",
            _LIMITS,
            Seconds(0.1),
            _DEFAULT.handshakeTimeout,
            "Seconds that a client has for the TLS handshake.",
        ),
        Setting(
            "auth-timeout",
            _LIMITS,
            Seconds(0.1),
            _DEFAULT.loginTimeout,
            "Seconds that a client has to log in; somebody may be typing a password.",
        ),
        Setting(
            "auth-tries",
            _LIMITS,
            Whole(1),
            _DEFAULT.loginTries,
            "How often a connection may fail to log in.",
        ),
        Setting(
            "auth-guesses",
            _LIMITS,
            Whole(1),
            _DEFAULT.loginGuesses,
            "Failed logins of one network, or by one user name, within a minute. After that they "
            "are checked one after another, --auth-delay apart; only users who have logged in from "
            "the same network within a day do not wait. Raise it for clients behind one address.",
        ),
        Setting(
            "auth-delay",
            _LIMITS,
            Seconds(),
            _DEFAULT.failureDelay,
            "Seconds after which a failed login is answered.",
        ),
        Setting(
            "open-timeout",
            _LIMITS,
            Seconds(0.1),
            _DEFAULT.openTimeout,
            "Seconds from connecting, or from logging in, until a client has opened.",
        ),
        Setting(
            "grace",
            _OPERATIONS,
            Seconds(),
            5.0,
            "Seconds that running calls have to finish when the server stops.",
        ),
        Setting(
            "drain-timeout",
            _OPERATIONS,
            Seconds(),
            300.0,
            "Seconds that clients have to leave when the server is drained (SIGUSR2), which is a "
            "stop that begins with accepting no new ones.",
        ),
        Setting(
            "workers",
            _OPERATIONS,
            WholeOr(Whole(1), "auto"),
            None,
            "How many processes serve, or auto for one for each processor. They are watched, "
            "replaced when they end, and administered as one. By default the server is one "
            "process.",
        ),
        Setting(
            "admin",
            _OPERATIONS,
            Text(),
            None,
            "Be administered by virt-admin and kaproto: the path of a UNIX socket for root and the "
            "user of this process, such as /run/kaserver/admin-sock, or one that systemd passes, "
            "systemd:domain=UNIX:name=admin.",
        ),
        Setting(
            "status",
            _OPERATIONS,
            Text(),
            None,
            "Serve a status page, /metrics for Prometheus, /livez and /readyz over HTTP: a Twisted "
            "server endpoint such as unix:/run/kaserver/status or tcp:9164:interface=127.0.0.1. "
            "Nothing can be changed there.",
        ),
        Setting(
            "agent",
            _OPERATIONS,
            Text(),
            None,
            "Tell haproxy whether to send clients here (agent-check): up, drain while the server "
            "is drained, down with the reason while libvirtd cannot be opened. A Twisted server "
            "endpoint such as tcp:9165.",
        ),
        Setting(
            "registry",
            _OPERATIONS,
            Text(),
            None,
            "List the clients in Redis, beside those of other kaservers, for kaproto --registry: "
            "redis://[USER@]HOST[:PORT][/DATABASE], or rediss: for TLS, after which may follow "
            "?ca=PATH&cert=PATH&key=PATH. Redis may be away: no client is affected.",
        ),
        Setting(
            "registry-password-file",
            _OPERATIONS,
            Text(),
            None,
            "Log in to Redis with the first line of this file.",
        ),
        Setting(
            "registry-orders",
            _OPERATIONS,
            Choice(ORDERS),
            ORDERS[0],
            "What whoever can write to Redis may have this kaserver do: all, that is disconnect "
            "clients and drain; disconnect; or none.",
        ),
        Setting(
            "node",
            _OPERATIONS,
            Text(),
            None,
            "What the registry calls this kaserver, by default the name of the host. Each has to "
            "have its own.",
        ),
        Setting(
            "log-format",
            _OPERATIONS,
            Choice(FORMATS),
            None,
            "How the log is written: text, or json, an object in each line. By default text, and "
            "under twist what its own option says.",
        ),
        Setting(
            "config",
            _OPERATIONS,
            Text(),
            None,
            "Read settings from this file (TOML). Flags win.",
            inFile=False,
        ),
        Setting(
            "check",
            _OPERATIONS,
            Flag(),
            False,
            "Print the settings in force, as a configuration file, and exit.",
            inFile=False,
        ),
    )
}
"""
The settings by name, in the order of C{--help}.
"""
