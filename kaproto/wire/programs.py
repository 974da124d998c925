"""
The numbers of libvirt's RPC: programs, procedures, features, error codes.

The names are libvirt's own without their common prefixes, from C{remote_protocol.x},
C{virnetprotocol.x}, C{virkeepaliveprotocol.x}, C{admin_protocol.x} and C{virterror.h}.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ADMIN_PROGRAM",
    "KEEPALIVE_PROGRAM",
    "LXC_PROGRAM",
    "PROGRAM_VERSION",
    "QEMU_PROGRAM",
    "REMOTE_PROGRAM",
    "AdminProcedure",
    "AuthType",
    "CloseReason",
    "ErrorCode",
    "ErrorDomain",
    "Feature",
    "KeepAliveProcedure",
    "Procedure",
]

REMOTE_PROGRAM = 0x20008086
QEMU_PROGRAM = 0x20008087
LXC_PROGRAM = 0x00068000
KEEPALIVE_PROGRAM = 0x6B656570
ADMIN_PROGRAM = 0x06900690
PROGRAM_VERSION = 1
"""
The version of every one of these programs.
"""


class KeepAliveProcedure(IntEnum):
    """
    The procedures of L{KEEPALIVE_PROGRAM}.
    """

    PING = 1
    PONG = 2


class Procedure(IntEnum):
    """
    The procedures of L{REMOTE_PROGRAM} that kaproto calls, answers or refuses.
    """

    CONNECT_OPEN = 1
    CONNECT_CLOSE = 2
    CONNECT_GET_TYPE = 3
    CONNECT_GET_VERSION = 4
    NODE_GET_INFO = 6
    CONNECT_GET_CAPABILITIES = 7
    DOMAIN_CREATE = 9
    DOMAIN_DESTROY = 12
    DOMAIN_GET_XML_DESC = 14
    DOMAIN_GET_AUTOSTART = 15
    DOMAIN_GET_INFO = 16
    DOMAIN_GET_OS_TYPE = 19
    DOMAIN_LOOKUP_BY_ID = 22
    DOMAIN_LOOKUP_BY_NAME = 23
    DOMAIN_LOOKUP_BY_UUID = 24
    DOMAIN_RESUME = 28
    DOMAIN_SHUTDOWN = 33
    DOMAIN_SUSPEND = 34
    CONNECT_GET_HOSTNAME = 59
    CONNECT_SUPPORTS_FEATURE = 60
    AUTH_LIST = 66
    AUTH_SASL_INIT = 67
    AUTH_SASL_START = 68
    AUTH_SASL_STEP = 69
    AUTH_POLKIT = 70
    CONNECT_GET_URI = 110
    CONNECT_IS_SECURE = 149
    DOMAIN_IS_ACTIVE = 150
    DOMAIN_IS_PERSISTENT = 151
    CONNECT_GET_LIB_VERSION = 157
    DOMAIN_HAS_MANAGED_SAVE_IMAGE = 183
    DOMAIN_GET_STATE = 212
    DOMAIN_OPEN_GRAPHICS = 249
    CONNECT_LIST_ALL_DOMAINS = 273
    DOMAIN_CREATE_XML_WITH_FILES = 309
    DOMAIN_CREATE_WITH_FILES = 310
    CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY = 316
    CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY = 317
    DOMAIN_EVENT_CALLBACK_LIFECYCLE = 318
    DOMAIN_OPEN_GRAPHICS_FD = 343
    CONNECT_REGISTER_CLOSE_CALLBACK = 360
    CONNECT_UNREGISTER_CLOSE_CALLBACK = 361
    CONNECT_EVENT_CONNECTION_CLOSED = 362
    CONNECT_SET_IDENTITY = 419
    DOMAIN_FD_ASSOCIATE = 443


class AdminProcedure(IntEnum):
    """
    The procedures of L{ADMIN_PROGRAM}, by which C{virt-admin} administers a daemon.
    """

    CONNECT_OPEN = 1
    CONNECT_CLOSE = 2
    CONNECT_GET_LIB_VERSION = 3
    CONNECT_LIST_SERVERS = 4
    CONNECT_LOOKUP_SERVER = 5
    SERVER_GET_THREADPOOL_PARAMETERS = 6
    SERVER_SET_THREADPOOL_PARAMETERS = 7
    SERVER_LIST_CLIENTS = 8
    SERVER_LOOKUP_CLIENT = 9
    CLIENT_GET_INFO = 10
    CLIENT_CLOSE = 11
    SERVER_GET_CLIENT_LIMITS = 12
    SERVER_SET_CLIENT_LIMITS = 13
    CONNECT_GET_LOGGING_OUTPUTS = 14
    CONNECT_GET_LOGGING_FILTERS = 15
    CONNECT_SET_LOGGING_OUTPUTS = 16
    CONNECT_SET_LOGGING_FILTERS = 17
    SERVER_UPDATE_TLS_FILES = 18
    CONNECT_SET_DAEMON_TIMEOUT = 19
    CONNECT_DAEMON_SHUTDOWN = 20


class Feature(IntEnum):
    """
    The features that C{CONNECT_SUPPORTS_FEATURE} asks about (libvirt's C{virDrvFeature}).
    """

    FD_PASSING = 8
    PROGRAM_KEEPALIVE = 10
    REMOTE_EVENT_CALLBACK = 14
    REMOTE_CLOSE_CALLBACK = 15


class AuthType(IntEnum):
    """
    Ways to authenticate (C{remote_auth_type}).
    """

    NONE = 0
    SASL = 1
    POLKIT = 2


class CloseReason(IntEnum):
    """
    The reasons of a close event (C{virConnectCloseReason}).  virsh prints them.
    """

    ERROR = 0
    EOF = 1
    KEEPALIVE = 2
    CLIENT = 3


class ErrorCode(IntEnum):
    """
    The C{virErrorNumber}s that kaproto sends or checks for.
    """

    INTERNAL_ERROR = 1
    NO_CONNECT = 5
    INVALID_ARG = 8
    OPERATION_FAILED = 9
    OPERATION_DENIED = 29
    SYSTEM_ERROR = 38
    RPC = 39
    NO_DOMAIN = 42
    AUTH_FAILED = 45
    OPERATION_INVALID = 55
    OPERATION_TIMEOUT = 68
    ARGUMENT_UNSUPPORTED = 74
    AUTH_CANCELLED = 79
    OPERATION_UNSUPPORTED = 84
    AUTH_UNAVAILABLE = 94
    NO_SERVER = 95
    NO_CLIENT = 96


class ErrorDomain(IntEnum):
    """
    The C{virErrorDomain}s that kaproto sends.
    """

    NONE = 0
    RPC = 7
    TEST = 12
    REMOTE = 13
    ADMIN = 62
