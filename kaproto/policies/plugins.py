"""
Finds policies by name, for C{--mode}.
"""

from __future__ import annotations

from twisted.plugin import getPlugins

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import MODES
from kaproto.policies.rules import RulesPolicy

__all__ = ["describePolicies", "findPolicy", "installedPolicies"]


def installedPolicies() -> dict[str, IKeepAlivePolicy]:
    """
    @return: kaproto's own policies and those of installed plugins, by name.  A plugin cannot
        replace one of kaproto's own.
    """
    own: list[IKeepAlivePolicy] = [*MODES, RulesPolicy()]
    policies = {policy.name: policy for policy in own}
    for policy in getPlugins(IKeepAlivePolicy):
        policies.setdefault(policy.name, policy)
    return policies


def findPolicy(selector: str, keepAlive: KeepAlive) -> IKeepAlivePolicy:
    """
    Find the policy for C{--mode}.

    @param selector: a mode's number, or C{NAME} or C{NAME:ARGUMENT}.
    @param keepAlive: the interval and count from the command line.
    @raise ValueError: when there is no such policy, or it does not take this argument.  The
        message lists the policies.
    """
    name, colon, argument = selector.partition(":")
    if name.isdecimal() and int(name) < len(MODES):
        name = MODES[int(name)].name
    policies = installedPolicies()
    policy = policies.get(name)
    if policy is None:
        known = ", ".join(sorted(policies))
        raise ValueError(
            f"there is no policy {name!r}: it is one of 0, 1, 2, {known}; "
            "--help-policies describes them"
        )
    try:
        return policy.configured(argument if colon else None, keepAlive)
    except ValueError as error:
        raise ValueError(f"policy {name}: {error}") from error


def describePolicies() -> str:
    """
    @return: the output of C{--help-policies}.
    """
    lines = ["Policies for --mode:"]
    for policy in installedPolicies().values():
        usage = policy.name + (f":{policy.argumentFormat}" if policy.argumentFormat else "")
        lines.append(f"  {usage:<24} {policy.description}")
    return "\n".join(lines)
