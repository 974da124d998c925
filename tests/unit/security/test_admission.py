"""
Tests for L{kaproto.security.admission}.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface

from kaproto.security.admission import AccessControl, mechanismsFor
from kaproto.security.plain import Plain
from kaproto.security.scram import IScramCredentials, ScramSHA256
from kaproto.security.tls import TLSIdentity
from kaproto.security.users import makePortal


class MechanismsTests(SynchronousTestCase):
    """
    Tests for L{mechanismsFor}.
    """

    def names(self, *interfaces: type[Interface], secure: bool = True) -> list[str]:
        """
        @return: the mechanisms offered when a checker takes these credentials.
        """
        checker: Any = mock.Mock(credentialInterfaces=interfaces)
        return list(mechanismsFor(makePortal([checker]), secure=secure))

    def test_passwords(self) -> None:
        """
        A checker that knows the passwords supports both mechanisms.
        """
        portal = makePortal([InMemoryUsernamePasswordDatabaseDontUse()])
        self.assertEqual(
            list(mechanismsFor(portal, secure=True).items()),
            [("SCRAM-SHA-256", ScramSHA256), ("PLAIN", Plain)],
        )

    def test_others(self) -> None:
        """
        Other checkers support the mechanisms whose credentials they take.
        """
        self.assertEqual(self.names(IUsernamePassword), ["PLAIN"])
        self.assertEqual(self.names(IScramCredentials), ["SCRAM-SHA-256"])
        self.assertEqual(list(mechanismsFor(makePortal([AllowAnonymousAccess()]), secure=True)), [])

    def test_insecure(self) -> None:
        """
        PLAIN is not offered on an insecure transport.
        """
        self.assertEqual(
            self.names(IUsernamePassword, IScramCredentials, secure=False), ["SCRAM-SHA-256"]
        )

    def test_withoutScramp(self) -> None:
        """
        Without scramp installed, only PLAIN is offered.
        """
        with mock.patch.dict(sys.modules, {"kaproto.security.scram": None}):
            self.assertEqual(self.names(IUsernamePassword, IScramCredentials), ["PLAIN"])


class AdmittanceTests(SynchronousTestCase):
    """
    Tests for L{AccessControl}.
    """

    def test_anybody(self) -> None:
        """
        Without DN patterns, every identity without a problem is allowed.
        """
        self.assertIsNone(AccessControl().checkCertificate(TLSIdentity("CN=alice", "00", None)))
        self.assertIsNone(AccessControl().checkCertificate(TLSIdentity(None, None, None)))

    def test_problem(self) -> None:
        """
        An identity with a problem is refused, whatever the DN patterns.
        """
        for patterns in (None, ["*"]):
            judge = AccessControl(tlsAllowedDNs=patterns).checkCertificate
            self.assertEqual(judge(TLSIdentity("CN=alice", "00", "it is old")), "it is old")

    def test_patterns(self) -> None:
        """
        With DN patterns, a certificate's DN must match one of them.
        """
        judge = AccessControl(tlsAllowedDNs=["CN=bob", "*,CN=al*"]).checkCertificate
        for dn in ("CN=bob", "C=GB,CN=alice"):
            self.assertIsNone(judge(TLSIdentity(dn, "00", None)))
        for dn in ("CN=alice", "CN=bobby"):
            self.assertIn(f"{dn!r}, is not allowed", str(judge(TLSIdentity(dn, "00", None))))
        self.assertIn("no certificate", str(judge(TLSIdentity(None, None, None))))

    def test_noPatterns(self) -> None:
        """
        An empty list of DN patterns allows no certificate.
        """
        judge = AccessControl(tlsAllowedDNs=[]).checkCertificate
        self.assertIsNotNone(judge(TLSIdentity("CN=alice", "00", None)))
