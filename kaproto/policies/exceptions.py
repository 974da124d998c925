"""
Exceptions from mandatory keepalive: peers that may open without asking for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from zope.interface import implementer

from kaproto.interfaces import Admission, IKeepAlivePolicy, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.peer import Peer
from kaproto.policies.conditions import ConditionError, Conditions, parseCondition

__all__ = ["Exceptions"]


@implementer(IKeepAlivePolicy)
class Exceptions:
    """
    Another policy, with exceptions.

    The other policy decides about an exempt peer as if it had asked for keepalive, so all other
    requirements still apply.  The peer is not pinged, since it may not answer.

    With mode 1, the warnings name the peers that mode 2 with the same exceptions would refuse.
    """

    argumentFormat = ""

    def __init__(self, policy: IKeepAlivePolicy, exceptions: Sequence[str]) -> None:
        """
        @param policy: the other policy.
        @param exceptions: conditions such as C{program=virt-install}, see
            L{kaproto.policies.conditions}.  A peer that fits one of them is exempt.
        @raise kaproto.policies.conditions.ConditionError: when a condition cannot be used; the
            message begins with that condition.
        """
        self._policy = policy
        self._exceptions = [(text, _parse(text)) for text in exceptions]
        self.name = policy.name
        self.description = policy.description

    def configured(self, argument: str | None, keepAlive: KeepAlive) -> Exceptions:
        """
        Configure the other policy.
        """
        exceptions = [text for text, _conditions in self._exceptions]
        return Exceptions(self._policy.configured(argument, keepAlive), exceptions)

    def advertises(self, peer: Peer) -> bool:
        """
        @return: the other policy's answer.
        """
        return self._policy.advertises(peer)

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        @return: the other policy's answer.
        """
        return self._policy.keepAlive(peer)

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        @return: the other policy's decision, for an exempt peer as if it had asked for keepalive.
        """
        if not peer.asked:
            for text, conditions in self._exceptions:
                if conditions.fit(peer):
                    answer = self._policy.admit(attrs.evolve(peer, asked=True))
                    rules = [answer.rule, f"exception {text}"]
                    return attrs.evolve(answer, rule=", ".join(filter(None, rules)))
        return self._policy.admit(peer)


def _parse(text: str) -> Conditions:
    try:
        return parseCondition(text)
    except ConditionError as error:
        raise ConditionError(f"{text}: {error}") from error
