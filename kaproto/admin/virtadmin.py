"""
libvirt's ADMIN program, with which an unmodified C{virt-admin} administers kaserver.

C{virt-admin} waits for a reply without a timeout, so every call is answered.  A keepalive ping
would crash it, so its connection is never pinged.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from kaproto import __version__
from kaproto.admin.clientlist import packCount, packList
from kaproto.admin.disconnecting import disconnectClient
from kaproto.admin.errors import checkFlags, noClient, noServer, unsupported
from kaproto.admin.parameters import (
    changedLimits,
    clientName,
    clientParameters,
    limitParameters,
    workerParameters,
)
from kaproto.admin.types import (
    ClientCall,
    ClientLookup,
    ClientName,
    Flags,
    ListOptions,
    LogFilters,
    LogOutputs,
    Parameters,
    ServerCall,
    ServerList,
    ServerListOptions,
    ServerLookup,
    ServerName,
    ServerParameters,
    SetLog,
    SetTimeout,
    Version,
)
from kaproto.backends.machine import versionNumber
from kaproto.program import Program, procedure
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.status.clients import clientsOf, findClient
from kaproto.status.daemon import SERVER_NAME, Daemon
from kaproto.wire.message import rpcError
from kaproto.wire.programs import ADMIN_PROGRAM, AdminProcedure, ErrorCode
from kaproto.wire.structs import unpack
from kaproto.wire.xdr import ARRAY_MAX

__all__ = ["ADMIN_SERVER", "AdminProgram"]

ADMIN_SERVER: Final = "admin"
"""
The name of the server whose clients are the administrators, as in libvirtd.
"""

_LOG: Final = "kaserver's log is configured with --logfile or --logger of twistd"


class AdminProgram(Program):
    """
    Lists, shows and disconnects clients, sets limits, reloads certificates, stops the daemon.
    """

    number: ClassVar[int] = ADMIN_PROGRAM

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: the daemon to administer.
        """
        self._daemon = daemon
        clock = daemon.factory.clock
        self._cooperator = Cooperator(scheduler=partial(clock.callLater, 0.0))

    def _server(
        self, connection: KeepAliveServerProtocol, server: ServerName
    ) -> KeepAliveServerFactory:
        """
        @raise kaproto.errors.RemoteError: when there is no such server.
        """
        if server.name == SERVER_NAME:
            return self._daemon.factory
        if server.name == ADMIN_SERVER:
            return connection.factory
        raise noServer(server.name)

    def _client(
        self, connection: KeepAliveServerProtocol, server: ServerName, number: int
    ) -> ServerConnection:
        """
        @raise kaproto.errors.RemoteError: when there is no such client.
        """
        client = findClient(self._server(connection, server), number)
        if client is None:
            raise noClient(number)
        return client

    @procedure(AdminProcedure.CONNECT_OPEN, arguments=Flags)
    def open(self, connection: KeepAliveServerProtocol, arguments: Flags) -> None:
        """
        Answer the call: there is nothing to open.
        """
        checkFlags(arguments.flags, "open")

    @procedure(AdminProcedure.CONNECT_CLOSE, arguments=None)
    def close(self, connection: KeepAliveServerProtocol) -> None:
        """
        Close the connection, after the reply.
        """
        connectionOf(connection, ServerConnection).closeRequested()

    @procedure(AdminProcedure.CONNECT_GET_LIB_VERSION, arguments=None, result=Version)
    def libVersion(self, connection: KeepAliveServerProtocol) -> Version:
        """
        @return: kaproto's version.
        """
        return Version(versionNumber(__version__))

    @procedure(AdminProcedure.CONNECT_LIST_SERVERS, arguments=ListOptions, result=ServerList)
    def listServers(
        self, connection: KeepAliveServerProtocol, arguments: ListOptions
    ) -> ServerList:
        """
        @return: the two servers: for clients and for administrators.
        """
        checkFlags(arguments.flags, "listServers")
        servers = [ServerName(SERVER_NAME), ServerName(ADMIN_SERVER)]
        return ServerList(servers if arguments.need else [], len(servers))

    @procedure(AdminProcedure.CONNECT_LOOKUP_SERVER, arguments=ServerLookup, result=ServerName)
    def lookupServer(
        self, connection: KeepAliveServerProtocol, arguments: ServerLookup
    ) -> ServerName:
        """
        @return: the server of this name.
        @raise kaproto.errors.RemoteError: when there is no such server.
        """
        server = ServerName(arguments.name)
        self._server(connection, server)
        return server

    @procedure(
        AdminProcedure.SERVER_GET_THREADPOOL_PARAMETERS, arguments=ServerCall, result=Parameters
    )
    def workers(self, connection: KeepAliveServerProtocol, arguments: ServerCall) -> Parameters:
        """
        @return: the parameters of the thread pool.
        """
        checkFlags(arguments.flags, "workers")
        self._server(connection, arguments.server)
        return workerParameters()

    @procedure(AdminProcedure.SERVER_SET_THREADPOOL_PARAMETERS, arguments=ServerParameters)
    def setWorkers(self, connection: KeepAliveServerProtocol, arguments: ServerParameters) -> None:
        """
        @raise kaproto.errors.RemoteError: always.
        """
        raise unsupported("kaserver has one thread and no pool of workers")

    @procedure(AdminProcedure.SERVER_LIST_CLIENTS)
    def listClients(
        self, connection: KeepAliveServerProtocol, payload: bytes
    ) -> bytes | Deferred[bytes]:
        """
        List the clients, or only their number.
        """
        arguments = unpack(ServerListOptions, payload)
        checkFlags(arguments.flags, "listClients")
        server = arguments.server
        factory = self._server(connection, server)
        if not arguments.need:
            return packCount(len(factory.clients))
        clients = clientsOf(factory)[:ARRAY_MAX]
        return packList(server, clients, factory.journal.wallClock, self._cooperator)

    @procedure(AdminProcedure.SERVER_LOOKUP_CLIENT, arguments=ClientLookup, result=ClientName)
    def lookupClient(
        self, connection: KeepAliveServerProtocol, arguments: ClientLookup
    ) -> ClientName:
        """
        Find a client by id.

        @return: the client.
        @raise kaproto.errors.RemoteError: when it is not connected.
        """
        checkFlags(arguments.flags, "lookupClient")
        client = self._client(connection, arguments.server, arguments.id)
        wallClock = self._daemon.factory.journal.wallClock
        return clientName(arguments.server, client, wallClock)

    @procedure(AdminProcedure.CLIENT_GET_INFO, arguments=ClientCall, result=Parameters)
    def clientInfo(self, connection: KeepAliveServerProtocol, arguments: ClientCall) -> Parameters:
        """
        @return: all parameters of a client.
        """
        checkFlags(arguments.flags, "clientInfo")
        which = arguments.client
        factory = self._server(connection, which.server)
        return clientParameters(factory, self._client(connection, which.server, which.id))

    @procedure(AdminProcedure.CLIENT_CLOSE, arguments=ClientCall)
    def closeClient(self, connection: KeepAliveServerProtocol, arguments: ClientCall) -> None:
        """
        Disconnect a client.
        """
        checkFlags(arguments.flags, "closeClient")
        which = arguments.client
        disconnectClient(self._client(connection, which.server, which.id))

    @procedure(AdminProcedure.SERVER_GET_CLIENT_LIMITS, arguments=ServerCall, result=Parameters)
    async def clientLimits(
        self, connection: KeepAliveServerProtocol, arguments: ServerCall
    ) -> Parameters:
        """
        @return: the numbers of clients, and their limits.
        """
        checkFlags(arguments.flags, "clientLimits")
        factory = self._server(connection, arguments.server)
        if factory is not self._daemon.factory:
            return limitParameters(factory.limits, len(factory.clients), factory.clients.anonymous)
        register = self._daemon.register
        await register.refresh()
        return limitParameters(factory.limits, len(register), register.anonymous)

    @procedure(AdminProcedure.SERVER_SET_CLIENT_LIMITS, arguments=ServerParameters)
    def setClientLimits(
        self, connection: KeepAliveServerProtocol, arguments: ServerParameters
    ) -> None:
        """
        Set the limits on clients.  Connected clients are not disconnected.
        """
        checkFlags(arguments.flags, "setClientLimits")
        factory = self._server(connection, arguments.server)
        factory.limits = changedLimits(factory.limits, arguments.parameters)

    @procedure(AdminProcedure.CONNECT_GET_LOGGING_OUTPUTS, arguments=Flags, result=LogOutputs)
    def logOutputs(self, connection: KeepAliveServerProtocol, arguments: Flags) -> LogOutputs:
        """
        @return: the output of the log in libvirt's notation: priority 2 (info), to twistd.
        """
        checkFlags(arguments.flags, "logOutputs")
        return LogOutputs("2:twistd", 1)

    @procedure(AdminProcedure.CONNECT_GET_LOGGING_FILTERS, arguments=Flags, result=LogFilters)
    def logFilters(self, connection: KeepAliveServerProtocol, arguments: Flags) -> LogFilters:
        """
        @return: no filters.
        """
        checkFlags(arguments.flags, "logFilters")
        return LogFilters(None, 0)

    @procedure(
        AdminProcedure.CONNECT_SET_LOGGING_OUTPUTS,
        AdminProcedure.CONNECT_SET_LOGGING_FILTERS,
        arguments=SetLog,
    )
    def setLog(self, connection: KeepAliveServerProtocol, arguments: SetLog) -> None:
        """
        @raise kaproto.errors.RemoteError: always.
        """
        raise unsupported(_LOG)

    @procedure(AdminProcedure.SERVER_UPDATE_TLS_FILES, arguments=ServerCall)
    async def updateTLSFiles(
        self, connection: KeepAliveServerProtocol, arguments: ServerCall
    ) -> None:
        """
        Reload certificates, rules and users.

        @raise kaproto.errors.RemoteError: when a file cannot be read; its previous contents stay in
            use.
        """
        checkFlags(arguments.flags, "updateTLSFiles")
        self._server(connection, arguments.server)
        problems = await self._daemon.reload()
        if problems:
            raise rpcError("; ".join(problems), ErrorCode.SYSTEM_ERROR)

    @procedure(AdminProcedure.CONNECT_SET_DAEMON_TIMEOUT, arguments=SetTimeout)
    def setTimeout(self, connection: KeepAliveServerProtocol, arguments: SetTimeout) -> None:
        """
        @raise kaproto.errors.RemoteError: always.
        """
        raise unsupported("kaserver does not stop by itself when it has no clients")

    @procedure(AdminProcedure.CONNECT_DAEMON_SHUTDOWN, arguments=Flags)
    def shutdown(self, connection: KeepAliveServerProtocol, arguments: Flags) -> None:
        """
        Stop the daemon gracefully, after the reply.
        """
        checkFlags(arguments.flags, "shutdown")
        connection.factory.clock.callLater(0, self._daemon.stop)
