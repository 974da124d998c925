"""
The compared servers: how to start each, and why it may be missing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from benchmarks.build import BuildError, build, missingCompiler
from benchmarks.checkout import BEFORE, ROOT, snapshot
from benchmarks.processes import Measured, freePort
from kaproto.cli.certificates import makeCertificates

__all__ = [
    "SERVERS",
    "TLS_ENDPOINT",
    "Recipe",
    "Running",
    "Server",
    "Setting",
    "noneBefore",
    "twistd",
]

PLUGINS = Path(__file__).parent / "plugins"
BACKLOG = 4096
TLS_ENDPOINT = "libvirttls"
_TLS_LISTEN = TLS_ENDPOINT + ":{port}:interface=127.0.0.1:backlog={backlog}:pki={folder}"


@dataclass(frozen=True)
class Setting:
    """
    The parameters for starting a server.

    @ivar port: the port to listen on, on the loopback address.
    @ivar interval: seconds of silence before a ping.
    @ivar count: unanswered pings after which a peer is dead.
    @ivar folder: the server's own directory.
    @ivar turns: the file in which to record the reactor's long turns, if they are recorded.
    """

    port: int
    interval: float
    count: int
    folder: Path
    turns: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """
    The command and environment for starting a process.

    @ivar command: the program and its arguments.
    @ivar environment: variables to add.
    @ivar user: the user to run as; by default this process's.
    @ivar folder: the directory to run in; by default this process's.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    folder: Path | None = None

    def start(self, log: Path) -> Measured:
        """
        Start the process.

        @param log: the file that gets its output.
        @return: the process.
        """
        return Measured(self.command, log, self.environment, self.user, self.folder)


@dataclass(frozen=True)
class Running:
    """
    A server that listens.

    @ivar process: its process.
    @ivar port: its port, on the loopback address.
    @ivar credentials: the paths of a client's certificate and key, if the server speaks TLS.
    """

    process: Measured
    port: int
    credentials: tuple[str, str] | None = None


def _present() -> str | None:
    return None


@dataclass(frozen=True)
class Server:
    """
    A server to measure.

    @ivar name: its name in the table.
    @ivar about: its description in a sentence.
    @ivar recipe: makes the command for a setting.
    @ivar missing: returns why it cannot run here; L{None} if it can.
    @ivar protocol: its clients' protocol, C{libvirt}, C{websocket}, C{lines} or C{tunnel}.
    @ivar tls: whether clients use TLS.
    @ivar spread: whether each client has its own interval.
    @ivar pings: whether it pings at all.
    @ivar usual: whether it runs unless servers are chosen by name.
    @ivar watcher: makes the command of a process that reads its status page while it is measured.
    """

    name: str
    about: str
    recipe: Callable[[Setting], Recipe]
    missing: Callable[[], str | None] = _present
    protocol: str = "libvirt"
    tls: bool = False
    spread: bool = False
    pings: bool = True
    usual: bool = True
    watcher: Callable[[Setting], Recipe] | None = None

    @contextmanager
    def running(
        self, interval: float, count: int, logs: Path, turns: Path | None = None
    ) -> Iterator[Running]:
        """
        Start a process of this server, and wait until it listens.

        @param interval: seconds of silence before a ping.
        @param count: unanswered pings after which a peer is dead.
        @param logs: the folder for its output.
        @param turns: see L{Setting}.
        @return: the running server.
        """
        with TemporaryDirectory(prefix="kaproto-benchmark-") as folder:
            setting = Setting(freePort(), interval, count, Path(folder), turns)
            credentials = None
            if self.tls:
                list(makeCertificates(setting.folder, ["127.0.0.1"], ["benchmark"]))
                own = f"{folder}/libvirt"
                credentials = (f"{own}/clientcert.pem", f"{own}/private/clientkey.pem")
            recipe = self.recipe(setting)
            if recipe.user:
                for path in (setting.folder, *setting.folder.rglob("*")):
                    shutil.chown(path, recipe.user)
            with recipe.start(logs / f"{self.name}.log") as process:
                process.waitListening(setting.port)
                with ExitStack() as beside:
                    if self.watcher is not None:
                        log = logs / f"{self.name}-watcher.log"
                        beside.enter_context(self.watcher(setting).start(log))
                    yield Running(process, setting.port, credentials)


def twistd(
    *arguments: str,
    reactor: str | None = None,
    plugins: bool = False,
    silent: bool = False,
    turns: Path | None = None,
    checkout: Path | None = None,
) -> Recipe:
    """
    Run a plugin in the foreground, from the copy of the project made at the beginning of the run.

    @param arguments: the plugin's name and its options.
    @param reactor: the reactor's short name; by default Twisted chooses.
    @param plugins: whether to add the plugins of the benchmark.
    @param silent: whether to write no log.
    @param turns: see L{Setting}.
    @param checkout: the folder that contains the packages; by default the copy of this project.
    @return: the recipe for starting it.
    """
    checkout = checkout or snapshot()
    paths = [
        str(checkout),
        *([str(PLUGINS)] if plugins else []),
        os.environ.get("PYTHONPATH", ""),
    ]
    start = ["-c", "from twisted.scripts.twistd import run; run()"]
    if turns is not None:
        # Without -P, Python would find the modules of the benchmarks before all others.
        start = ["-P", str(ROOT / "benchmarks" / "turns.py"), str(turns.absolute())]
    command = [sys.executable, *start, "--nodaemon", "--pidfile="]
    if reactor is not None:
        command.append(f"--reactor={reactor}")
    if silent:
        command.append("--logger=silence.observer")
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # With -c, the working directory comes before PYTHONPATH.
    return Recipe([*command, *arguments], environment, folder=checkout)


def _kaserver(
    listen: str = "tcp:{port}:interface=127.0.0.1:backlog={backlog}",
    reactor: str | None = None,
    mode: str = "2",
    *more: str,
    plugins: bool = False,
    silent: bool = False,
    checkout: Path | None = None,
) -> Callable[[Setting], Recipe]:
    def recipe(setting: Setting) -> Recipe:
        where = listen.format(port=setting.port, backlog=BACKLOG, folder=setting.folder)
        return twistd(
            "kaserver",
            f"--mode={mode}",
            f"--interval={setting.interval:g}",
            f"--count={setting.count}",
            f"--listen={where}",
            *(each.format(folder=setting.folder) for each in more),
            reactor=reactor,
            plugins=plugins,
            silent=silent,
            turns=setting.turns,
            checkout=checkout,
        )

    return recipe


def _watcher(setting: Setting) -> Recipe:
    command = [sys.executable, "-m", "benchmarks.peers.watcher", f"{setting.folder}/status"]
    return Recipe(command, {"PYTHONPATH": str(ROOT)})


def _needs(module: str, cure: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        try:
            found = find_spec(module)
        except ImportError:
            found = None
        return None if found else cure

    return missing


def _peer(name: str, *more: str, counted: bool = True) -> Callable[[Setting], Recipe]:
    def recipe(setting: Setting) -> Recipe:
        command = [sys.executable, "-m", f"benchmarks.peers.{name}", str(setting.port)]
        command.append(f"{setting.interval:g}")
        if counted:
            command.append(str(setting.count))
        return Recipe([*command, *more], {"PYTHONPATH": str(ROOT)})

    return recipe


def _tlsMissing() -> str | None:
    if _needsKaserver() is not None:
        return _needsKaserver()
    if missingCompiler() is not None:
        return f"the load generator over TLS {missingCompiler()}"
    parsers = getPlugins(IStreamServerEndpointStringParser)
    if not any(parser.prefix == TLS_ENDPOINT for parser in parsers):
        return f"there is no endpoint {TLS_ENDPOINT}"
    try:
        build("load", tls=True)
    except BuildError as error:
        return str(error)
    return None


def noneBefore() -> str | None:
    """
    Check for an earlier version to compare with.

    @return: why there is none; L{None} if C{KAPROTO_BEFORE} names a checkout of the earlier code.
    """
    return None if BEFORE else "KAPROTO_BEFORE names no other checkout"


def _floor(setting: Setting) -> Recipe:
    if missingCompiler() is not None:
        return _peer("floor")(setting)
    arguments = [str(setting.port), f"{setting.interval:g}", str(setting.count)]
    return Recipe([str(build("floor")), *arguments])


def _libvirtdPath() -> str | None:
    return shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _libvirtdMissing() -> str | None:
    if _libvirtdPath() is None:
        return "libvirtd is not installed (Debian: libvirt-daemon)"
    return None


def _libvirtdTlsMissing() -> str | None:
    return _libvirtdMissing() or _tlsMissing()


def _libvirtd(setting: Setting) -> Recipe:
    listen = f"""
listen_tls = 0
listen_tcp = 1
tcp_port = "{setting.port}"
auth_tcp = "none"
"""
    return _libvirtdListening(setting, listen)


def _libvirtdTls(setting: Setting) -> Recipe:
    own = setting.folder / "libvirt"
    listen = f"""
listen_tls = 1
listen_tcp = 0
tls_port = "{setting.port}"
auth_tls = "none"
ca_file = "{setting.folder}/CA/cacert.pem"
cert_file = "{own}/servercert.pem"
key_file = "{own}/private/serverkey.pem"
"""
    return _libvirtdListening(setting, listen)


def _libvirtdListening(setting: Setting, listen: str) -> Recipe:
    """
    Run libvirtd in session mode, so that all its files are in one folder.  It never runs as root.

    Its keepalive interval is a whole number of seconds.
    """
    folder = setting.folder
    run = folder / "run"
    run.mkdir(mode=0o700)
    configuration = folder / "libvirtd.conf"
    configuration.write_text(
        f"""{listen}
listen_addr = "127.0.0.1"
unix_sock_dir = "{run}"
keepalive_interval = {max(1, round(setting.interval))}
keepalive_count = {setting.count}
max_clients = 100000
max_queued_clients = {BACKLOG}
log_level = 4
log_outputs = "4:stderr"
"""
    )
    homes = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(run)}
    for kind in ("CONFIG", "CACHE", "DATA", "STATE"):
        homes[f"XDG_{kind}_HOME"] = str(folder / kind.lower())
    libvirtd = _libvirtdPath()
    assert libvirtd is not None
    pidFile = folder / "libvirtd.pid"
    return Recipe(
        [libvirtd, "--listen", "--config", str(configuration), "--pid-file", str(pidFile)],
        homes,
        _nobody(),
    )


def _nobody() -> str | None:
    return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else None


_needsKaserver = _needs("kaproto.app.service", "kaproto cannot be imported")
_needsTwisted = _needs("twisted", "Twisted is not installed")
_fromRequirements = "is not installed: pip install -r benchmarks/requirements.txt"

_ALL = [
    Server("floor", "one epoll loop and a timer wheel, in C if there is a compiler", _floor),
    Server("kaserver", "this project, mode 2", _kaserver(), _needsKaserver),
    Server(
        "kaserver-before",
        "the same from the checkout in $KAPROTO_BEFORE",
        _kaserver(checkout=Path(BEFORE or ".").absolute()),
        noneBefore,
        usual=False,
    ),
    Server(
        "kaserver-workers",
        "the same with two processes that serve",
        _kaserver("tcp:{port}:interface=127.0.0.1:backlog={backlog}", None, "2", "--workers=2"),
        _needsKaserver,
        usual=False,
    ),
    Server(
        "kaserver-many",
        "the same with as many processes as 100,000 clients need files",
        _kaserver("tcp:{port}:interface=127.0.0.1:backlog={backlog}", None, "2", "--workers=6"),
        _needsKaserver,
        usual=False,
    ),
    Server(
        "kaserver-operations",
        "the same with --admin and --status, its page open and its metrics read",
        _kaserver(
            "tcp:{port}:interface=127.0.0.1:backlog={backlog}",
            None,
            "2",
            "--admin={folder}/admin",
            "--status=unix:{folder}/status",
        ),
        _needsKaserver,
        usual=False,
        watcher=_watcher,
    ),
    Server(
        "kaserver-silent",
        "the same without --admin, --status and log",
        _kaserver(plugins=True, silent=True),
        _needsKaserver,
        usual=False,
    ),
    Server(
        "kaserver-intervals",
        "the same, 1,000 different intervals",
        _kaserver(mode="benchmark-spread", plugins=True),
        _needsKaserver,
        spread=True,
    ),
    Server(
        "kaserver-tls",
        "the same over TLS",
        _kaserver(_TLS_LISTEN),
        _tlsMissing,
        tls=True,
    ),
    Server(
        "kaserver-tls-before",
        "the same from the checkout in $KAPROTO_BEFORE",
        _kaserver(_TLS_LISTEN, checkout=Path(BEFORE or ".").absolute()),
        lambda: _tlsMissing() or noneBefore(),
        tls=True,
        usual=False,
    ),
    Server(
        "kaserver-asyncio",
        "the same on asyncio's loop",
        _kaserver(reactor="asyncio"),
        _needsKaserver,
        usual=False,
    ),
    Server(
        "kaserver-poll",
        "the same on poll(2)",
        _kaserver(reactor="poll"),
        _needsKaserver,
        usual=False,
    ),
    Server(
        "watched-lines",
        "this project's wrapper round a LineReceiver",
        _peer("watched", "lines"),
        _needsKaserver,
        "lines",
    ),
    Server(
        "tunnel",
        "this project's tunnel below a Protocol",
        _peer("watched", "tunnel"),
        _needsKaserver,
        "tunnel",
    ),
    Server(
        "wheel",
        "bare Twisted, one wheel for all, detects no deaths",
        _peer("bare", "wheel", counted=False),
        _needsTwisted,
    ),
    Server(
        "loopingcall",
        "bare Twisted, a LoopingCall for each, detects no deaths",
        _peer("bare", "loopingcall", counted=False),
        _needsTwisted,
    ),
    Server(
        "autobahn",
        "Autobahn's WebSocket on Twisted, autoPing",
        _peer("autobahn"),
        _needs("autobahn", f"autobahn {_fromRequirements}"),
        "websocket",
    ),
    Server(
        "websockets",
        "websockets on asyncio, ping_interval",
        _peer("websockets"),
        _needs("websockets", f"websockets {_fromRequirements}"),
        "websocket",
    ),
    Server("libvirtd", "libvirtd, test driver", _libvirtd, _libvirtdMissing),
    Server(
        "libvirtd-tls",
        "the same over TLS",
        _libvirtdTls,
        _libvirtdTlsMissing,
        tls=True,
    ),
    Server(
        "bare",
        "bare Twisted Protocol, never pings: the memory of a connection",
        _peer("bare", "none", counted=False),
        _needsTwisted,
        pings=False,
    ),
]

SERVERS = {server.name: server for server in _ALL}
"""
All servers by name, in the table's order.
"""
