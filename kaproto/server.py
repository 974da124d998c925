"""
The server's end of a connection: a Protocol and a Factory to subclass.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from zope.interface import implementer

from kaproto.arguments import checkInstance, checkType
from kaproto.errors import ServerStopping
from kaproto.interfaces import IBackend, IKeepAlivePolicy, IProgram, ISession
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import MODES, Disable, Policy
from kaproto.program import ApplicationBackend, Program
from kaproto.records.journal import Journal
from kaproto.rpc.clients import Clients
from kaproto.rpc.policycheck import PolicyCheck
from kaproto.rpc.protocol import KeepAliveFactory, KeepAliveProtocol
from kaproto.rpc.remote import RemoteProgram
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.security.admission import AccessControl
from kaproto.security.handshake import ICertificateChecker
from kaproto.security.loginqueue import ILoginQueue, LoginQueue
from kaproto.wire.programs import PROGRAM_VERSION

__all__ = ["KeepAliveServerFactory", "KeepAliveServerProtocol"]


@implementer(IHandshakeListener, ICertificateChecker)
class KeepAliveServerProtocol(KeepAliveProtocol, isBase=True):
    """
    A connection from a client.  Programs get it as an argument of each call.
    """

    factory: KeepAliveServerFactory
    _kaprotoConnection = ServerConnection
    _kaproto: ServerConnection

    @property
    def peer(self) -> Peer:
        """
        The client's identity and state.
        """
        return self._kaproto.peer

    @property
    def session(self) -> ISession | None:
        """
        The backend's session for the client, while it is open.
        """
        return self._kaproto.session

    @property
    def congested(self) -> bool:
        """
        Whether the client reads too slowly, so that events would pile up in memory.
        """
        return self._kaproto.outgoing.congested

    def startKeepAlive(self, keepAlive: KeepAlive) -> None:
        """
        Start pinging the client, or change interval and count; zero in either stops the pings.
        Only a client that has asked for keepalive answers them.
        """
        self._kaproto.startKeepAlive(keepAlive)

    def sendEvent(
        self, program: int, procedure: int, payload: bytes, version: int = PROGRAM_VERSION
    ) -> None:
        """
        Send the client an event: a message that is not a reply.

        @param program: the number of the program.
        @param procedure: the number of the procedure.
        @param payload: the payload, in XDR.
        @param version: the version of the program.
        """
        self._kaproto.events.send(program, procedure, payload, version)

    def disconnect(self, reason: Exception) -> None:
        """
        Close the connection once everything that was written has been sent.

        @param reason: the reason for C{connectionClosed}.
        """
        self._kaproto.disconnect(reason)

    def abort(self, reason: Exception) -> None:
        """
        Close the connection at once, without sending what is buffered.

        @param reason: the reason for C{connectionClosed}.
        """
        self._kaproto.abort(reason)

    def handshakeCompleted(self) -> None:
        """
        The TLS handshake is done.
        """
        self._kaproto.handshakeCompleted()


class KeepAliveServerFactory(KeepAliveFactory):
    """
    Serves the remote program, with negotiated keepalive, and an application's own programs.

    @ivar policyCheck: calls the policy.
    @ivar programs: the application's programs, by number.
    @ivar accessControl: who may connect.
    @ivar loginQueue: decides when a client's password may be checked.  It can be replaced by a
        queue for several processes.
    @ivar clients: the connected clients.
    @ivar journal: counts and logs what happens to clients.
    @ivar counters: the journal's counters.
    @ivar startsOpen: whether connections are open as soon as the policy admits them, without
        C{CONNECT_OPEN}, and without the remote program that defines it.
    """

    protocol = KeepAliveServerProtocol

    def __init__(
        self,
        policy: IKeepAlivePolicy | Policy | int | None = None,
        backend: IBackend | None = None,
        programs: Iterable[IProgram | Program] = (),
        clock: IReactorTime | None = None,
        accessControl: AccessControl | None = None,
        limits: Limits | None = None,
        *,
        mode: int | None = None,
        startsOpen: bool = False,
    ) -> None:
        """
        @param policy: a policy, or the number of a mode: 0 never pings, 1 pings clients that
            asked for keepalive, 2 also refuses others.  By default 0.
        @param backend: opens sessions; by default an L{ApplicationBackend}.
        @param programs: the application's own programs.
        @param clock: see L{KeepAliveFactory}.
        @param accessControl: by default every client that the transport accepts may connect.
        @param limits: by default those of L{Limits}.
        @param mode: the number of a mode, in place of C{policy}.
        @param startsOpen: serve only C{programs}, to connections that need not open.  These clients
            are not pinged, since they cannot ask for keepalive.
        @raise TypeError: when C{policy}, C{backend} or one of C{programs} has a wrong type, such as
            a class instead of an instance, or C{policy} and C{mode} are both given.
        @raise ValueError: when there is no such mode, when two programs have the same number, or
            when C{startsOpen} is combined with logins.
        """
        super().__init__(clock, limits)
        self.programs: dict[int, IProgram] = {}
        if backend is not None:
            checkInstance("backend", backend, IBackend)
        remote = () if startsOpen else (RemoteProgram(backend or ApplicationBackend()),)
        if not isinstance(programs, Iterable):
            raise TypeError("programs is a single object, not a list: write programs=[...]")
        for program in (*remote, *programs):
            checkInstance("a program", program, IProgram)
            if program.number in self.programs:
                raise ValueError(f"two programs have the number {program.number:#x}")
            self.programs[program.number] = program
        self.clients: Clients[ServerConnection, KeepAliveServerProtocol] = Clients(self.clock)
        self.journal = Journal(self.seconds)
        self.counters = self.journal.counters
        self.policy = _policyFor(policy, mode)
        if accessControl is None:
            accessControl = AccessControl()
        checkType("accessControl", accessControl, AccessControl)
        self.accessControl = accessControl
        self.loginQueue: ILoginQueue = LoginQueue(self.clock, lambda: self.limits)
        if startsOpen and self.accessControl.portal is not None:
            raise ValueError("startsOpen: clients cannot log in without the remote program")
        self.startsOpen = startsOpen

    @property
    def policy(self) -> IKeepAlivePolicy:
        """
        Decides about keepalive for each client that connects from now on.
        """
        return self.policyCheck.policy

    @policy.setter
    def policy(self, policy: IKeepAlivePolicy) -> None:
        self.policyCheck = PolicyCheck(policy, self.journal.policyFailed)

    @property
    def connections(self) -> list[KeepAliveServerProtocol]:
        """
        The protocols of the connected clients.
        """
        return self.clients.protocols

    def drain(self) -> Deferred[None]:
        """
        Let every connection finish its accepted calls, and close it.

        @return: fires when no connection is left.
        """
        empty = self.clients.whenEmpty()
        self.clients.endAll(ServerConnection.drain)
        return empty

    def expel(self) -> None:
        """
        Answer all unfinished calls with an error, and close every connection.
        """
        reason = ServerStopping()
        self.clients.endAll(lambda connection: connection.expel(reason))

    def abort(self) -> None:
        """
        Close every connection at once, without sending what is buffered.
        """
        reason = ServerStopping()
        self.clients.endAll(lambda connection: connection.abort(reason))


def _policyFor(
    policy: IKeepAlivePolicy | Policy | int | None, mode: int | None
) -> IKeepAlivePolicy:
    if mode is not None:
        if policy is not None:
            raise TypeError(f"policy={policy!r} and mode={mode!r}: give one of the two")
        policy = mode
    if policy is None:
        return Disable()
    if isinstance(policy, int):
        if isinstance(policy, bool) or policy not in range(len(MODES)):
            raise ValueError(
                f"there is no mode {policy!r}; 0 never pings, 1 pings clients that asked for "
                "keepalive, 2 also refuses others"
            )
        return MODES[policy]
    checkInstance(
        "policy",
        policy,
        IKeepAlivePolicy,
        "pass 0, 1 or 2, or a policy such as Mandatory(KeepAlive(5, 5))",
    )
    return policy
