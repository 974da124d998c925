"""
Attacks on TLS: certificates that are slow to check, and messages that OpenSSL answers by itself.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import gcd

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from tests.harness.attacks.honest import enter
from tests.harness.attacks.rawsocket import Address, Outcome, TLSAddress, connect
from tests.harness.attacks.targets import KaTarget, until
from tests.interop.test_tls import NO_TICKETS
from tests.pki import Authority, distinguished
from tests.rawtls import CIPHER, RawTLS12, RawTLS13

__all__ = [
    "CHAINS",
    "TLSTarget",
    "announced",
    "endless",
    "keyUpdates",
    "reloads",
    "renegotiations",
    "strangers",
]

_Chain = tuple[Sequence[x509.Certificate], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]

_DAY = dt.timedelta(days=1)
_PIECE = 65536
_HANDSHAKE = b"\x16\x03\x01"
_HELLO_MAX = 131_000


class TLSTarget(KaTarget):
    """
    A kaserver that listens with TLS.  Honest clients have a certificate.
    """

    def __init__(self, *arguments: str, newest: bool = False) -> None:
        """
        @param newest: whether TLS 1.3 is enabled.
        """
        super().__init__(*arguments)
        self._pki = os.path.join(self.directory, "pki")
        self._newest = newest
        self._authority = authority = Authority()
        authority.write(self._pki, authority.issue(distinguished("server"), hosts=["127.0.0.1"]))
        self._clients = {
            name: authority.issue(distinguished(name)) for name in ("alice", "mallory")
        }
        for name, identity in self._clients.items():
            with open(self.certificate(name), "wb") as file:
                file.write(identity.certificatePEM + identity.keyPEM)
        self.revoke()

    @property
    def listener(self) -> str:
        """
        The endpoint to listen on.
        """
        return f"libvirttls:0:interface=127.0.0.1:pki={self._pki}"

    def revoke(self, *names: str) -> None:
        """
        Renew the certificate revocation list.

        @param names: the clients on it.
        """
        path = os.path.join(self._pki, "CA", "cacrl.pem")
        with open(f"{path}.new", "wb") as file:
            file.write(self._authority.revoke(*(self._clients[name] for name in names)))
        os.replace(f"{path}.new", path)

    def certificate(self, name: str) -> str:
        """
        @return: the path of a client's certificate and private key.
        """
        return os.path.join(self.directory, f"{name}.pem")

    @property
    def environment(self) -> Mapping[str, str]:
        """
        The environment of the server's process.
        """
        if not self._newest:
            return super().environment
        path = os.path.join(self.directory, "openssl.cnf")
        with open(path, "w", encoding="ascii") as file:
            file.write(NO_TICKETS)
        return {**os.environ, "OPENSSL_CONF": path}

    def listens(self, place: str | int) -> None:
        """
        Record the port.
        """
        assert isinstance(place, int)
        self.address, self.anonymous = TLSAddress(place, self.certificate("alice")), place


def reloads(target: TLSTarget, times: int) -> Outcome:
    """
    Renew the revocation list and reload it repeatedly, during the handshakes of a client that is
    not on it, and of one that is on every second list.
    """
    address = target.address
    assert isinstance(address, TLSAddress)
    mallory = address._replace(certificate=target.certificate("mallory"))
    ends: Counter[str] = Counter()
    took = []
    for number in range(times):
        begun = len(target.log)
        revoked = ["mallory"] if number % 2 else []
        target.revoke(*revoked)
        os.kill(target.pid, signal.SIGHUP)
        for _ in range(3):
            enter(address, None, 10).socket.close()
            ends["let in"] += 1
        took.append(until(partial(_logged, target, begun, "reloaded"), "a reload"))
        try:
            enter(mallory, None, 10).socket.close()
            ends["mallory let in"] += 1
        except OSError:
            ends["mallory refused"] += 1
    return Outcome(times, ends, took)


def _logged(target: TLSTarget, begun: int, word: str) -> bool:
    return word in target.log[begun:]


def _slowKey() -> rsa.RSAPrivateKey:
    """
    @return: a key with a public exponent of 3,000 bits, whose signatures take 5 ms to check.
    """
    numbers = rsa.generate_private_key(65537, 3072).private_numbers()
    p, q = numbers.p, numbers.q
    totient = (p - 1) * (q - 1)
    exponent = (1 << 3069) + 1
    while gcd(exponent, totient) != 1:
        exponent += 2
    secret = pow(exponent, -1, totient)
    public = rsa.RSAPublicNumbers(exponent, p * q)
    parts = secret % (p - 1), secret % (q - 1), pow(q, -1, p)
    return rsa.RSAPrivateNumbers(p, q, secret, *parts, public).private_key()


def _certificate(
    subject: str,
    issuer: str,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=subject != "leaf", path_length=None), critical=True)
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, hashes.SHA256())


def _line(
    count: int, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, last: str = "last"
) -> _Chain:
    """
    @return: a chain of authorities, each signed by the next.
    """
    names = ["leaf", *(f"authority {number}" for number in range(1, count)), last]
    return [_certificate(names[at], names[at + 1], key) for at in range(count)], key


def _slow(count: int) -> Callable[[], _Chain]:
    return lambda: _line(count, _slowKey())


def _forged() -> _Chain:
    """
    @return: a chain that claims to end at the server's authority.
    """
    return _line(3, _slowKey(), "Test CA")


def _names() -> _Chain:
    """
    @return: two certificates, with as many names and name constraints as fit.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(f"a{n}.b") for n in range(1000)])
    constraints = x509.NameConstraints([x509.DNSName(f"c{n}.d") for n in range(1000)], None)
    return [
        _certificate("leaf", "authority", key, names),
        _certificate("authority", "authority", key, constraints),
    ], key


def _many() -> _Chain:
    """
    @return: certificates that could all have signed each other.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _certificate("leaf", "authority", key)
    return [leaf, *(_certificate("authority", "authority", key) for _ in range(100))], key


CHAINS: Mapping[str, Callable[[], _Chain]] = {
    "one slow certificate": _slow(1),
    "20 slow certificates": _slow(20),
    "60 slow certificates": _slow(60),
    "forged certificates": _forged,
    "many names": _names,
    "101 certificates": _many,
}
"""
The certificate chains that strangers present.
"""


def strangers(address: Address, seconds: float, chain: str) -> Outcome:
    """
    Make handshakes with a stranger's certificates, one after the other.

    @param chain: one of L{CHAINS}.
    """
    assert isinstance(address, int)
    certificates, key = CHAINS[chain]()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate(certificates[0])
    for each in certificates[1:]:
        context.add_extra_chain_cert(each)
    context.use_privatekey(key)
    ends: Counter[str] = Counter()
    took = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        begun = time.monotonic()
        with connect(address) as one:
            ends[_end(one, SSL.Connection(context, None))] += 1
        took.append(time.monotonic() - begun)
    return Outcome(len(took), ends, took)


def _end(one: socket.socket, connection: SSL.Connection) -> str:
    """
    @return: how a handshake ended, and what followed.
    """
    try:
        if not _shakeHands(one, connection):
            return "refused in the handshake"
        while True:
            with suppress(SSL.WantReadError):
                return "let in" if connection.recv(1) else "refused after the handshake"
            data = one.recv(_PIECE)
            if not data:
                return "refused after the handshake"
            connection.bio_write(data)
    except SSL.ZeroReturnError:
        return "refused after the handshake"
    except (SSL.Error, OSError):
        return "refused in the handshake"


def _shakeHands(one: socket.socket, connection: SSL.Connection) -> bool:
    connection.set_connect_state()
    while True:
        done = False
        with suppress(SSL.WantReadError):
            connection.do_handshake()
            done = True
        with suppress(SSL.WantReadError):
            while True:
                one.sendall(connection.bio_read(_PIECE))
        if done:
            return True
        data = one.recv(_PIECE)
        if not data:
            return False
        connection.bio_write(data)


def _accepted(address: Address, context: SSL.Context) -> tuple[socket.socket, SSL.Connection]:
    """
    @return: a connection after its handshake, before any data.
    """
    assert isinstance(address, TLSAddress)
    context.use_certificate_file(address.certificate)
    context.use_privatekey_file(address.certificate)
    one = connect(address.port, receiveBuffer=2048)
    connection = SSL.Connection(context, None)
    if not _shakeHands(one, connection):
        raise ConnectionResetError("no handshake")
    return one, connection


def _flood(one: socket.socket, message: Callable[[], bytes], seconds: float) -> tuple[str, int]:
    """
    Send a message repeatedly, and read nothing.

    @return: how it ended, and the number of messages sent.
    """
    one.settimeout(1)
    sent = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            one.sendall(b"".join(message() for _ in range(100)))
        except TimeoutError:
            continue
        except OSError:
            return "closed", sent
        sent += 100
    return "stays", sent


def _floods(
    address: Address, peers: int, seconds: float, flood: Callable[[Address, float], tuple[str, int]]
) -> Outcome:
    ends: Counter[str] = Counter()
    took = []
    total = 0
    for _ in range(peers):
        begun = time.monotonic()
        end, sent = flood(address, seconds / peers)
        took.append(time.monotonic() - begun)
        ends[end] += 1
        total += sent
    return Outcome(peers, ends, took, f"{total:,} messages")


def renegotiations(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Clients that send one ClientHello after the other, after a TLS 1.2 handshake.
    """

    def flood(address: Address, seconds: float) -> tuple[str, int]:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(CIPHER)
        one, connection = _accepted(address, context)
        with one:
            return _flood(one, RawTLS12(connection).hello, seconds)

    return _floods(address, peers, seconds, flood)


def keyUpdates(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Clients that change their key repeatedly after a TLS 1.3 handshake, and each time demand that
    the server changes its own.
    """

    def flood(address: Address, seconds: float) -> tuple[str, int]:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        records = RawTLS13(context)
        one, _connection = _accepted(address, context)
        with one:
            return _flood(one, records.keyUpdate, seconds)

    return _floods(address, peers, seconds, flood)


def announced(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Peers that announce a ClientHello of 128 KiB, for which OpenSSL allocates memory, and send
    nothing more of it.
    """
    hello = _HANDSHAKE + struct.pack(">HB", 5, 1) + _HELLO_MAX.to_bytes(3) + b"\3"
    crowd = []
    for _ in range(peers):
        one = connect(address)
        one.sendall(hello)
        crowd.append(one)
    time.sleep(seconds)
    for one in crowd:
        one.close()
    return Outcome(peers, Counter({"stays": peers}))


def endless(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Peers that send a handshake without end.
    """
    piece = _HANDSHAKE + struct.pack(">H", 16384) + bytes(16384)
    begin = _HANDSHAKE + struct.pack(">HB", 4, 1) + _HELLO_MAX.to_bytes(3)
    ends: Counter[str] = Counter()
    took = []
    for _ in range(peers):
        begun = time.monotonic()
        with connect(address) as one:
            one.settimeout(seconds / peers)
            end = "stays"
            try:
                one.sendall(begin + piece * 4)
                if not one.recv(1):
                    end = "closed"
            except TimeoutError:
                pass
            except OSError:
                end = "closed"
            ends[end] += 1
        took.append(time.monotonic() - begun)
    return Outcome(peers, ends, took)
