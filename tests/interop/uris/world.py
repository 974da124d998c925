"""
Run as C{world.py PKI CLIENT USER}, as root of new user, network and mount namespaces.  Makes every
address local and resolves names from a file, then tries the URIs on standard input, one per line,
with a client.

It writes a line of JSON for each: the URI, what the server saw, and the client's error.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from importlib import import_module

PORTS = [1, 5, 22, 4040, 16509, 16514, 34463, 65535]
HOSTS = """
127.0.0.1 localhost
::1 localhost
192.0.2.1 host
192.0.2.2 host.test
192.0.2.3 xn--hst-sna.test
192.0.2.4 UPPER
192.0.2.5 under_score
192.0.2.6 session
192.0.2.7 system
192.0.2.8 other
2001:db8::9 six
"""
ACCOUNTS = """
root:x:0:0::/run/home:/bin/sh
user:x:1000:1000::/run/home:/bin/sh
"""
SOCKETS = [
    "/run/x",
    "/run/a b",
    "/run/a+b",
    "/run/é",
    f"/run/{'x' * 102}",
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/libvirt-sock-ro",
    "/run/libvirt/virtqemud-sock",
    "/run/user/libvirt/libvirt-sock",
    "/run/user/libvirt/virtqemud-sock",
]


def run(*command: str) -> None:
    """
    Run a program that must succeed.
    """
    subprocess.run(command, check=True)


def build(pki: str) -> None:
    """
    Set up the namespaces.
    """
    run("ip", "link", "set", "lo", "up")
    run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
    run("ip", "-6", "route", "add", "local", "::/0", "dev", "lo")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w", encoding="ascii") as file:
        file.write("0")
    run("mount", "-t", "tmpfs", "none", "/etc")
    run("mount", "-t", "tmpfs", "none", "/run")
    os.makedirs("/etc/pki/CA")
    shutil.copy(f"{pki}/cacert.pem", "/etc/pki/CA")
    for path in ("/run/home", "/run/user", "/run/bin"):
        os.mkdir(path, 0o700)
    for path, text in (
        ("/etc/hosts", HOSTS),
        ("/etc/nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\n"),
        ("/etc/passwd", ACCOUNTS),
        ("/run/bin/ssh", "#!/bin/sh\nexit 1\n"),
    ):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    os.chmod("/run/bin/ssh", 0o700)
    os.environ["PATH"] = f"/run/bin:{os.environ['PATH']}"
    os.environ["HOME"] = "/run/home"
    os.environ["XDG_RUNTIME_DIR"] = "/run/user"


def main(pki: str, client: str, user: str) -> None:
    """
    Set up the namespaces or, if another user is wanted, set up and then become that user; then try
    the URIs.
    """
    sys.path.insert(0, os.path.dirname(__file__))
    if os.geteuid() == 0:
        build(pki)
        if user != "0":
            # This user owns root's files.
            mapped = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
            os.execvp("unshare", [*mapped, sys.executable, *sys.argv])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # libvirt 9's client takes a TLS 1.3 ticket for the server's confirmation.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(f"{pki}/servercert.pem", f"{pki}/serverkey.pem")
    recorder = import_module("recorder").Recorder(context)
    recorder.listenTCP(PORTS)
    recorder.listenUNIX(SOCKETS)

    def done(uri: str, error: str | None) -> None:
        sys.stdout.write(json.dumps([uri, recorder.opened, error]) + "\n")
        recorder.opened.clear()

    import_module(client).tryAll([line.rstrip("\n") for line in sys.stdin], done)


if __name__ == "__main__":
    main(*sys.argv[1:])
