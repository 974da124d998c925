"""
Formats objects for people; C{--json} prints the same objects unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kaproto.cli.table import table
from kaproto.records.who import clean
from kaproto.status.texts import elapsed

__all__ = ["ago", "fields", "messageLine", "milliseconds", "who"]


def who(client: Mapping[str, Any]) -> str | None:
    """
    @return: a client's user name, the name in its certificate, or its program on this machine.
    """
    for key in ("user", "dn"):
        if client.get(key) is not None:
            return str(client[key])
    if client.get("uid") is None:
        return None
    return f"{client.get('program') or 'unknown'} (uid {client['uid']})"


def ago(time: str) -> str:
    """
    @param time: in ISO 8601.
    @return: the time since then.
    """
    return elapsed(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()))


def milliseconds(microseconds: int | None) -> str | None:
    """
    @return: the duration as text.
    """
    return None if microseconds is None else f"{microseconds / 1000:.3f} ms"


def messageLine(event: Mapping[str, Any]) -> str:
    """
    @return: a line about a message of a trace.
    """
    arrow = "client >" if event["direction"] == "in" else "client <"
    what = event["name"] or f"procedure {event['procedure']}"
    line = f"{event['at_ms'] / 1000:9.3f} s  {arrow} {event['type']} {event['program']} {what}"
    if "latency_us" in event:
        return clean(f"{line}, {event['latency_us'] / 1000:.3f} ms after the ping")
    status = "" if event["status"] == "ok" else f", {event['status']}"
    return clean(f"{line}, serial {event['serial']}, {event['bytes']} bytes{status}")


def fields(given: Mapping[str, Any]) -> list[str]:
    """
    @return: a line for each field of an object that has a value.
    """
    rows = [
        (name.replace("_", " "), _flat(value)) for name, value in given.items() if value is not None
    ]
    return list(table(("", ""), rows))[1:]


def _flat(value: object) -> object:
    if isinstance(value, dict):
        known = {name: each for name, each in value.items() if each is not None}
        return ", ".join(f"{name.replace('_', ' ')} {_flat(each)}" for name, each in known.items())
    if isinstance(value, list):
        return ", ".join(str(_flat(each)) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
