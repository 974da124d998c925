"""
Calls a policy, and catches its errors.
"""

from __future__ import annotations

from collections.abc import Callable

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.peer import Peer

__all__ = ["PolicyCheck", "PolicyFailed", "TellFailure"]

TellFailure = Callable[[str, str, Peer, Exception], None]
"""
A function called with the policy's name, the name of its method, the peer and the error.
"""


class PolicyFailed(Exception):
    """
    The policy raised an error, or returned a value of a wrong type.
    """


class PolicyCheck:
    """
    Calls the methods of a policy, which an application may have written.

    @ivar policy: the policy.
    """

    __slots__ = ("_tell", "policy")

    def __init__(self, policy: IKeepAlivePolicy, tell: TellFailure | None = None) -> None:
        """
        @param tell: called when the policy raises an error; with a L{TypeError} when it returns a
            value of a wrong type.
        """
        self.policy = policy
        self._tell = tell

    @property
    def name(self) -> str:
        """
        The policy's name in log lines.
        """
        return str(getattr(self.policy, "name", "")) or type(self.policy).__qualname__

    def ask(self, question: str, peer: Peer, *kinds: type) -> object:
        """
        Call a method of the policy.

        @param question: the method's name.
        @param kinds: the types that the method may return.
        @raise PolicyFailed: when the method raises an error or returns a value of another type.
        """
        try:
            answer: object = getattr(self.policy, question)(peer)
        except Exception as error:
            problem = error
        else:
            if isinstance(answer, kinds):
                return answer
            problem = TypeError(f"{question}() returned {answer!r}")
        if self._tell is not None:
            self._tell(self.name, question, peer, problem)
        raise PolicyFailed from problem
