"""
The backend of a server that serves only an application's own programs.
"""

from __future__ import annotations

from zope.interface import implementer

from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer

__all__ = ["ApplicationBackend"]


@implementer(ISession)
class _NoSession:
    """
    A session without procedures.
    """

    idle = True

    def opened(self, connection: object) -> None:
        """
        Do nothing.
        """

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        @raise KeyError: always: there are no procedures.
        """
        raise KeyError(procedure)

    def closed(self, reason: Exception) -> None:
        """
        Do nothing.
        """


@implementer(IBackend)
class ApplicationBackend:
    """
    Opens any name, and adds no procedures to the remote program: for a server that serves only the
    application's own programs.
    """

    features: frozenset[int] = frozenset()

    def knows(self, procedure: int) -> bool:
        """
        @return: C{False}.
        """
        return False

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        @return: a session without procedures.
        """
        return _NoSession()
