"""
Tests for L{kaproto.wire.programs}, with a second copy of libvirt's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from twisted.trial.unittest import SynchronousTestCase

from kaproto.wire import programs

PROCEDURES = {
    "CONNECT_OPEN": 1,
    "CONNECT_CLOSE": 2,
    "CONNECT_GET_TYPE": 3,
    "CONNECT_GET_VERSION": 4,
    "NODE_GET_INFO": 6,
    "CONNECT_GET_CAPABILITIES": 7,
    "DOMAIN_CREATE": 9,
    "DOMAIN_DESTROY": 12,
    "DOMAIN_GET_XML_DESC": 14,
    "DOMAIN_GET_AUTOSTART": 15,
    "DOMAIN_GET_INFO": 16,
    "DOMAIN_GET_OS_TYPE": 19,
    "DOMAIN_LOOKUP_BY_ID": 22,
    "DOMAIN_LOOKUP_BY_NAME": 23,
    "DOMAIN_LOOKUP_BY_UUID": 24,
    "DOMAIN_RESUME": 28,
    "DOMAIN_SHUTDOWN": 33,
    "DOMAIN_SUSPEND": 34,
    "CONNECT_GET_HOSTNAME": 59,
    "CONNECT_SUPPORTS_FEATURE": 60,
    "AUTH_LIST": 66,
    "AUTH_SASL_INIT": 67,
    "AUTH_SASL_START": 68,
    "AUTH_SASL_STEP": 69,
    "AUTH_POLKIT": 70,
    "CONNECT_GET_URI": 110,
    "CONNECT_IS_SECURE": 149,
    "DOMAIN_IS_ACTIVE": 150,
    "DOMAIN_IS_PERSISTENT": 151,
    "CONNECT_GET_LIB_VERSION": 157,
    "DOMAIN_HAS_MANAGED_SAVE_IMAGE": 183,
    "DOMAIN_GET_STATE": 212,
    "DOMAIN_OPEN_GRAPHICS": 249,
    "CONNECT_LIST_ALL_DOMAINS": 273,
    "DOMAIN_CREATE_XML_WITH_FILES": 309,
    "DOMAIN_CREATE_WITH_FILES": 310,
    "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY": 316,
    "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY": 317,
    "DOMAIN_EVENT_CALLBACK_LIFECYCLE": 318,
    "DOMAIN_OPEN_GRAPHICS_FD": 343,
    "CONNECT_REGISTER_CLOSE_CALLBACK": 360,
    "CONNECT_UNREGISTER_CLOSE_CALLBACK": 361,
    "CONNECT_EVENT_CONNECTION_CLOSED": 362,
    "CONNECT_SET_IDENTITY": 419,
    "DOMAIN_FD_ASSOCIATE": 443,
}

ERROR_CODES = {
    "INTERNAL_ERROR": 1,
    "NO_CONNECT": 5,
    "INVALID_ARG": 8,
    "OPERATION_FAILED": 9,
    "OPERATION_DENIED": 29,
    "SYSTEM_ERROR": 38,
    "RPC": 39,
    "NO_DOMAIN": 42,
    "AUTH_FAILED": 45,
    "OPERATION_INVALID": 55,
    "OPERATION_TIMEOUT": 68,
    "ARGUMENT_UNSUPPORTED": 74,
    "AUTH_CANCELLED": 79,
    "OPERATION_UNSUPPORTED": 84,
    "AUTH_UNAVAILABLE": 94,
    "NO_SERVER": 95,
    "NO_CLIENT": 96,
}


class NumbersTests(SynchronousTestCase):
    """
    Tests for the numbers that libvirt's clients and servers use.
    """

    def assertNumbers(self, enum: type[IntEnum], expected: Mapping[str, int]) -> None:
        """
        Check that the enum has exactly these members.
        """
        self.assertEqual({name: int(member) for name, member in enum.__members__.items()}, expected)

    def test_programs(self) -> None:
        """
        The programs have libvirt's numbers; that of the keepalive program spells "keep".
        """
        self.assertEqual(programs.REMOTE_PROGRAM, 0x20008086)
        self.assertEqual(programs.QEMU_PROGRAM, 0x20008087)
        self.assertEqual(programs.LXC_PROGRAM, 0x00068000)
        self.assertEqual(programs.KEEPALIVE_PROGRAM.to_bytes(4, "big"), b"keep")
        self.assertEqual(programs.ADMIN_PROGRAM, 0x06900690)
        self.assertEqual(programs.PROGRAM_VERSION, 1)

    def test_keepAliveProcedures(self) -> None:
        """
        A ping is procedure 1 and a pong 2.
        """
        self.assertNumbers(programs.KeepAliveProcedure, {"PING": 1, "PONG": 2})

    def test_procedures(self) -> None:
        """
        The procedures of the remote program are those of C{remote_protocol.x}.
        """
        self.assertNumbers(programs.Procedure, PROCEDURES)

    def test_adminProcedures(self) -> None:
        """
        The procedures of the admin program have the numbers of C{admin_protocol.x}: 1 to 20, in
        its order.
        """
        names = [
            "CONNECT_OPEN",
            "CONNECT_CLOSE",
            "CONNECT_GET_LIB_VERSION",
            "CONNECT_LIST_SERVERS",
            "CONNECT_LOOKUP_SERVER",
            "SERVER_GET_THREADPOOL_PARAMETERS",
            "SERVER_SET_THREADPOOL_PARAMETERS",
            "SERVER_LIST_CLIENTS",
            "SERVER_LOOKUP_CLIENT",
            "CLIENT_GET_INFO",
            "CLIENT_CLOSE",
            "SERVER_GET_CLIENT_LIMITS",
            "SERVER_SET_CLIENT_LIMITS",
            "CONNECT_GET_LOGGING_OUTPUTS",
            "CONNECT_GET_LOGGING_FILTERS",
            "CONNECT_SET_LOGGING_OUTPUTS",
            "CONNECT_SET_LOGGING_FILTERS",
            "SERVER_UPDATE_TLS_FILES",
            "CONNECT_SET_DAEMON_TIMEOUT",
            "CONNECT_DAEMON_SHUTDOWN",
        ]
        expected = {name: number for number, name in enumerate(names, 1)}
        self.assertNumbers(programs.AdminProcedure, expected)

    def test_features(self) -> None:
        """
        The features are those of C{virDrvFeature}; keepalive is number 10.
        """
        self.assertNumbers(
            programs.Feature,
            {
                "FD_PASSING": 8,
                "PROGRAM_KEEPALIVE": 10,
                "REMOTE_EVENT_CALLBACK": 14,
                "REMOTE_CLOSE_CALLBACK": 15,
            },
        )

    def test_authTypes(self) -> None:
        """
        The authentication types are those of C{remote_auth_type}.
        """
        self.assertNumbers(programs.AuthType, {"NONE": 0, "SASL": 1, "POLKIT": 2})

    def test_closeReasons(self) -> None:
        """
        The reasons for closing are those of C{virConnectCloseReason}.
        """
        self.assertNumbers(
            programs.CloseReason, {"ERROR": 0, "EOF": 1, "KEEPALIVE": 2, "CLIENT": 3}
        )

    def test_errorCodes(self) -> None:
        """
        The error codes are those of C{virErrorNumber}.
        """
        self.assertNumbers(programs.ErrorCode, ERROR_CODES)

    def test_errorDomains(self) -> None:
        """
        The error domains are those of C{virErrorDomain}.
        """
        self.assertNumbers(
            programs.ErrorDomain, {"NONE": 0, "RPC": 7, "TEST": 12, "REMOTE": 13, "ADMIN": 62}
        )
