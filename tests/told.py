"""
Lists how each command and each output in the pages is tested: the test that runs or compares it, or
the reason why there is no test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["COMMANDS", "OUTPUTS"]

_NEWCOMERS: Final = "tests.newcomers.test_newcomers.NewcomerTests"
_CI: Final = "tests.test_packaging.CommandTests.test_continuousIntegration"
_MINUTES: Final = "takes minutes; test_modules sees that the module is there"
_SYSTEM: Final = "changes the machine, and is the distribution's own"
_NAMES: Final = "names a host and a user of the reader's"
_ADMIN: Final = "tests.interop.test_virtadmin"

COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "CONTRIBUTING.md": {".ci/run": "is what runs these tests"},
    "README.md": {
        "python3 -m venv": _CI,
        "virsh -c test+tcp": "tests.test_readme.ClientsTests.test_virsh",
        "/usr/bin/python3 -c": "tests.test_readme.ClientsTests.test_refused",
        ".venv/bin/twistd -n kaserver --mode=2 --upstream": (
            "tests.interop.test_start.GatewayTests.test_defaultSocket"
        ),
        "virsh -c 'qemu+unix": "tests.interop.test_start.GatewayTests.test_defaultSocket",
    },
    "benchmarks/README.md": {
        "pip install -r benchmarks/requirements.txt": "installs what is compared with",
        "python -m benchmarks": _MINUTES,
        "KAPROTO_BEFORE=": _MINUTES,
    },
    "docs/howto/anyprotocol.rst": {
        "twistd -n web": "tests.test_pages.CommandsTests.test_endpoints",
        "python jobs.py": "tests.interop.test_anyprotocol.LifeTests.test_lives",
    },
    "docs/howto/authentication.rst": {
        "kaproto certificates": f"{_NEWCOMERS}.test_certificates",
        "twistd -n kaserver --mode=2": f"{_NEWCOMERS}.test_certificates",
        "virsh -c 'test+tls": f"{_NEWCOMERS}.test_certificates",
        "umask": "holds for the shell that it is typed in",
        "openssl": f"{_NEWCOMERS}.test_openssl",
        "virsh -c 'qemu+tls": _NAMES,
        "twistd -n kaserver --listen": "tests.interop.test_tls.VirshTests.test_certificates",
        "cat lost": "needs certtool, which is GnuTLS's",
        "printf": "needs certtool, which is GnuTLS's",
        "certtool": "needs certtool, which is GnuTLS's",
        "python -m kaproto.security.scramfile": (
            "tests.unit.security.test_scramfile.MainTests.test_line"
        ),
        "systemctl": _SYSTEM,
    },
    "docs/howto/client.rst": {".venv/bin/python docs/examples": f"{_NEWCOMERS}.test_author"},
    "docs/howto/workers.rst": {"twistd": "tests.interop.test_workers.OneServerTests.test_life"},
    "docs/howto/exceptions.rst": {
        "journalctl": _SYSTEM,
        "twistd": "tests.interop.test_exceptions.ExceptionsTests.test_exceptions",
        "virsh": "tests.interop.test_exceptions.ReadOnlyGatewayTests.test_readOnly",
    },
    "docs/howto/fleet.rst": {
        "kaproto --registry": "tests.interop.test_registry.RegistryTests.test_fleet",
        "kaproto --socket": f"{_ADMIN}.KaprotoTests.test_clients",
        "systemctl": _SYSTEM,
    },
    "docs/howto/gateway.rst": {
        "twistd": "tests.interop.test_start.GatewayTests.test_defaultSocket",
        "systemctl": _SYSTEM,
        "useradd": _SYSTEM,
        "usermod": _SYSTEM,
        "python3 -m venv /opt/kaproto": _SYSTEM,
        "/opt/kaproto/bin/": _SYSTEM,
    },
    "docs/howto/monitoring.rst": {
        "twistd": "tests.test_pages.CommandsTests.test_parsed",
        "systemctl": _SYSTEM,
        "kaproto ping --count": "tests.interop.test_kaproto.PingTests.test_ping",
        "kaproto ping --check": "tests.interop.test_kaproto.PingTests.test_check",
        "kaproto": f"{_ADMIN}.KaprotoTests.test_clients",
        "virsh": f"{_ADMIN}.KaprotoTests.test_reason",
        "virt-admin": f"{_ADMIN}.VirtAdminTests.test_clients",
        "curl": "tests.interop.test_status.LifeTests.test_everything",
    },
    "docs/howto/operations.rst": {"twistd": f"{_NEWCOMERS}.test_operations"},
    "docs/howto/policy.rst": {
        ".venv/bin/pip install docs/examples/rollout": (
            "tests.test_thirdparty.ThirdPartyTests.test_described"
        ),
        ".venv/bin/twistd kaserver --help": "tests.test_thirdparty.ThirdPartyTests.test_described",
        ".venv/bin/twistd -n": "tests.test_thirdparty.ThirdPartyTests.test_argument",
    },
    "docs/howto/server.rst": {".venv/bin/python docs/examples": f"{_NEWCOMERS}.test_developer"},
    "docs/howto/testing.rst": {
        ".venv/bin/python -m twisted.trial": "tests.test_examples.ScriptTests.test_scripts"
    },
    "docs/package.md": {
        "pip install kaproto": "takes it from an index",
        "kaproto demo": "tests.test_readme.DemoTests.test_output",
        "twistd -n kaserver --mode=2": "tests.test_readme.ClientsTests.test_virsh",
        "virsh": "tests.test_readme.ClientsTests.test_virsh",
    },
    "docs/performance.md": {
        "pip install -e": "installs what is compared with",
        "python -m benchmarks": _MINUTES,
    },
    "docs/reference/commandline.rst": {
        "twistd kaserver --config": "tests.interop.test_start.ConfigTests.test_file"
    },
    "docs/reliability.md": {"python -m tests": _MINUTES, "trial tests": _MINUTES},
    "docs/tutorial.rst": {
        "python3 -m venv": "python -m tests.newcomers types it, in tox's package",
        ".venv/bin/twistd": f"{_NEWCOMERS}.test_administrator",
        "virsh": f"{_NEWCOMERS}.test_administrator",
        ".venv/bin/kaproto": f"{_NEWCOMERS}.test_administrator",
        "pkill": f"{_NEWCOMERS}.test_administrator",
        "/usr/bin/python3": f"{_NEWCOMERS}.test_administrator",
        ".venv/bin/python": f"{_NEWCOMERS}.test_author",
    },
}
"""
By page and the command's beginning.  The first match counts.
"""

OUTPUTS: Final[Mapping[str, Mapping[str, str]]] = {
    "README.md": {"  0.00 s  server": "tests.test_readme.DemoTests.test_output"},
    "docs/explanation/architecture.rst": {"+---": "tests.test_pages.PagesTests.test_written"},
    "docs/howto/anyprotocol.rst": {
        "tcpkeepalive:tcp:": "tests.test_pages.CommandsTests.test_endpoints"
    },
    "docs/howto/authentication.rst": {
        "network 192.0.2.1: 10 logins": "tests.interop.test_sasl.VirshTests.test_logins"
    },
    "docs/howto/fleet.rst": {
        "clients  ---->": "is a drawing",
        "ACL SETUSER": "tests.interop.test_registry.ScriptTests.test_users",
        "global": "tests.interop.test_haproxy.GuideTests.test_configuration",
    },
    "docs/howto/gateway.rst": {
        "clients  ---UNIX": "is a drawing",
        "[Socket]": "is for systemd, and for a machine without polkit",
        "error: failed to connect": "tests.test_readme.ClientsTests.test_refused",
        "unix socket pid=4711": "tests.interop.test_gateway_busy.BusyTests.test_busy",
        "tcp 192.0.2.7:40112 is dead": f"{_NEWCOMERS}.test_administrator",
    },
    "docs/howto/monitoring.rst": {"scrape_configs:": "is for Prometheus"},
    "docs/howto/operations.rst": {"0 0 * * 0": f"{_NEWCOMERS}.test_operations"},
    "docs/reference/commandline.rst": {
        "twistd kaserver": "tests.test_pages.PagesTests.test_written",
        "Policies for --mode": "tests.test_pages.PagesTests.test_written",
        "[kaproto.audit#info]": "tests.unit.records.test_audit.AuditTests.test_closed",
    },
    "docs/reference/wire.rst": {
        "0000001c 6b656570": "tests.unit.wire.test_message.PackTests.test_keepAliveMessages"
    },
    "docs/reliability.md": {"fault ": "is the table of a run that took minutes"},
    "docs/tutorial.rst": {"tcp 127.0.0.1:35318 is dead": f"{_NEWCOMERS}.test_administrator"},
}
"""
By page and the block's beginning: blocks that are neither code nor commands.
"""
