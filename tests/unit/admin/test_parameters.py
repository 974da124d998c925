"""
Tests for L{kaproto.admin.parameters}.
"""

from __future__ import annotations

import os
import pwd

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress

from kaproto.admin.parameters import changedLimits, clientParameters, limitParameters
from kaproto.errors import RemoteError
from kaproto.limits import Limits
from kaproto.peer import UnixCredentials
from kaproto.policies import Optional
from kaproto.wire.xdr import ParameterType, TypedParameter
from tests.support import FEATURE_KEEPALIVE, KEEPALIVE, OPEN
from tests.support_admin import AdminTestCase

ANY = 2**32 - 1


def unsigned(**values: int) -> list[TypedParameter]:
    """
    @return: typed parameters as C{virt-admin} sends them.
    """
    return [TypedParameter(name, value, ParameterType.UINT) for name, value in values.items()]


class LimitTests(AdminTestCase):
    """
    Tests for C{server-clients-info} and C{server-clients-set}.
    """

    def test_info(self) -> None:
        """
        No limit is shown as the largest number.  The limit for anonymous clients is never shown
        above the other, because libvirt's clients check that.
        """
        for limits, most, unknown in [
            (Limits(), ANY, 1024),
            (Limits(maxAnonymousClients=0), ANY, ANY),
            (Limits(maxClients=7), 7, 7),
            (Limits(maxClients=7, maxAnonymousClients=3), 7, 3),
        ]:
            self.server.limits = limits
            found = {
                each.name: each.value
                for each in limitParameters(self.server.limits, 0, 0).parameters
            }
            self.assertEqual((found["nclients_max"], found["nclients_unauth_max"]), (most, unknown))

    def test_set(self) -> None:
        """
        Given parameters are set and others are kept; the largest number means no limit.
        """
        limits = Limits(maxClients=10, maxAnonymousClients=5, pingBudget=7)
        for given_, changes in [
            ({}, {}),
            ({"nclients_max": 20}, {"maxClients": 20}),
            ({"nclients_max": 3}, {"maxClients": 3}),
            ({"nclients_max": ANY}, {"maxClients": 0}),
            ({"nclients_unauth_max": 10}, {"maxAnonymousClients": 10}),
            (
                {"nclients_max": 30, "nclients_unauth_max": 30},
                {"maxClients": 30, "maxAnonymousClients": 30},
            ),
        ]:
            changed = changedLimits(limits, unsigned(**given_))
            self.assertEqual(changed, attrs.evolve(limits, **changes))

    def test_mistakes(self) -> None:
        """
        Invalid parameters are refused, with libvirtd's messages if it has them.
        """
        for parameters, code, words in [
            (unsigned(nclients=5), 74, "argument unsupported: parameter 'nclients' not supported"),
            (
                [TypedParameter("nclients_max", 5, ParameterType.INT)],
                8,
                "invalid argument: invalid type 'int' for parameter 'nclients_max', "
                "expected 'uint'",
            ),
            (
                unsigned(nclients_max=5) * 2,
                8,
                "invalid argument: parameter 'nclients_max' occurs multiple times",
            ),
            (unsigned(nclients_max=0), 8, "daemon-shutdown"),
            (unsigned(nclients_unauth_max=11), 8, "cannot be more than"),
            (unsigned(nclients_max=5, nclients_unauth_max=6), 8, "cannot be more than"),
        ]:
            error = self.assertRaises(RemoteError, changedLimits, Limits(maxClients=10), parameters)
            self.assertEqual(error.code, code)
            self.assertIn(words, error.message)

    @given(st.integers(1, ANY), st.integers(1, ANY))
    def test_roundTrip(self, most: int, unknown: int) -> None:
        """
        Limits that are set are shown with the same values.
        """
        self.server.limits = Limits()
        if unknown > most:
            return
        self.server.limits = changedLimits(
            self.server.limits, unsigned(nclients_max=most, nclients_unauth_max=unknown)
        )
        found = {
            each.name: each.value for each in limitParameters(self.server.limits, 0, 0).parameters
        }
        self.assertEqual((found["nclients_max"], found["nclients_unauth_max"]), (most, unknown))


class ClientTests(AdminTestCase):
    """
    Tests for C{client-info}.
    """

    def test_open(self) -> None:
        """
        An open client that is pinged has libvirt's parameters and kaproto's, with types that
        C{virt-admin} prints well.
        """
        self.daemon = self.makeDaemon(Optional(KEEPALIVE))
        client = self.openClient()
        self._pairs[0].advance(1.5)
        found = {each.name: each for each in clientParameters(self.server, client).parameters}
        shown = {name: each.value for name, each in found.items()}
        self.assertEqual(
            shown,
            {
                "readonly": False,
                "sock_addr": "127.0.0.1:54321",
                "phase": "open",
                "keepalive_asked": True,
                "policy": "optional",
                "keepalive_interval": 1,
                "keepalive_count": 2,
                "last_heard_ms": shown["last_heard_ms"],
                "latency_us": 0,
                "opened": "",
                "calls": 0,
                "bytes_received": shown["bytes_received"],
                "bytes_sent": shown["bytes_sent"],
            },
        )
        self.assertEqual(found["keepalive_asked"].type, ParameterType.BOOLEAN)
        self.assertEqual(found["keepalive_interval"].type, ParameterType.UINT)
        self.assertEqual(found["policy"].type, ParameterType.STRING)
        self.assertLess(float(shown["last_heard_ms"]), 1000)

    def test_identity(self) -> None:
        """
        Line breaks in a client's distinguished name are escaped.
        """
        wire = self.client()
        wire.protocol.peer.user, wire.protocol.peer.tlsDN = "alice", "CN=a\nb"
        found = {
            each.name: each.value
            for each in clientParameters(self.server, self.connectionOf(wire)).parameters
        }
        self.assertEqual(found["sasl_user_name"], "alice")
        self.assertEqual(found["tls_x509_dname"], r"CN=a\nb")
        self.assertEqual(found["phase"], "ready")
        self.assertNotIn("opened", found)

    def test_local(self) -> None:
        """
        A local client has a user, a group and a process id, with names if the system knows them.
        """
        wire = self.accept(self.server, UNIXAddress(None))
        wire.protocol.peer.unixCredentials = UnixCredentials(7, os.getuid(), os.getgid())
        parameters = clientParameters(self.server, self.connectionOf(wire)).parameters
        found = {each.name: each.value for each in parameters}
        self.assertEqual(found["unix_user_name"], pwd.getpwuid(os.getuid()).pw_name)
        self.assertEqual((found["unix_process_id"], found["unix_user_id"]), (7, os.getuid()))
        self.assertIn("unix_group_name", found)
        self.assertNotIn("sock_addr", found)
        kinds = {each.name: each.type for each in parameters}
        self.assertEqual(kinds["unix_user_id"], ParameterType.INT)
        wire.protocol.peer.unixCredentials = UnixCredentials(7, 3999999, 3999999)
        found = {
            each.name: each.value
            for each in clientParameters(self.server, self.connectionOf(wire)).parameters
        }
        self.assertNotIn("unix_user_name", found)
        self.assertNotIn("unix_group_name", found)

    def test_fraction(self) -> None:
        """
        An interval of half a second is shown as a fraction.
        """
        self.daemon = self.makeDaemon(Optional(attrs.evolve(KEEPALIVE, interval=0.5)))
        wire = self.client()
        wire.feed(FEATURE_KEEPALIVE, OPEN)
        found = {
            each.name: each
            for each in clientParameters(self.server, self.connectionOf(wire)).parameters
        }
        self.assertEqual(found["keepalive_interval"].value, 0.5)
        self.assertEqual(found["keepalive_interval"].type, ParameterType.DOUBLE)
