"""
The commands for a fleet of nodes that share a registry: C{kaproto --registry=URL}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.python.usage import UsageError

from kaproto.cli.command import CommandFailed, ExitCode, ListingCommand
from kaproto.cli.objects import who
from kaproto.cli.table import table
from kaproto.registry.link import (
    MissingExtra,
    RedisError,
    RedisFactory,
    RedisLink,
    connectLink,
    requireExtra,
)
from kaproto.registry.location import BadLocation, Location
from kaproto.registry.schema import NODE_NAME
from kaproto.registry.view import FleetView, NodeView, OrderFailed

__all__ = [
    "FleetCommand",
    "FleetDisconnect",
    "FleetDrain",
    "FleetList",
    "FleetRefused",
    "Nodes",
]

_Object = dict[str, Any]


class FleetCommand(ListingCommand):
    """
    A command for a fleet.
    """

    async def run(self, reactor: IReactorTime) -> int:
        """
        Connect to the registry, and perform the command.
        """
        assert self.parent is not None, "it is a subcommand"
        url, path = self.parent.get("registry"), self.parent["registry-password-file"]
        if url is None:
            raise CommandFailed(
                "this asks the registry: kaproto --registry=URL, with kaserver's URL",
                ExitCode.USAGE,
            )
        links: list[RedisLink] = []
        try:
            requireExtra()
            location = Location.parse(url)
            password = location.password(None if path is None else Path(path))
            endpoint = location.endpoint(reactor)
        except (BadLocation, MissingExtra) as error:
            raise CommandFailed(f"--registry: {error}", ExitCode.USAGE) from error

        async def connect() -> RedisLink:
            factory = RedisFactory(location, password, reactor)
            links.append(link := await connectLink(endpoint, factory))
            return link

        try:
            return await self.perform(FleetView(await connect(), connect), reactor)
        except (ConnectError, RedisError) as error:
            raise CommandFailed(f"registry {location}: {error}", ExitCode.UNREACHABLE) from error
        except OrderFailed as error:
            raise CommandFailed(str(error)) from error
        finally:
            for each in links:
                each.abort("done")
                await each.whenEnded()

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        Perform the command.

        @return: the exit code.
        """
        raise NotImplementedError


class Nodes(FleetCommand):
    """
    List the nodes.  Exits with 1 when one of them is gone.
    """

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        List them.
        """
        nodes = await fleet.nodes()
        objects = [
            {
                **each.about,
                "node": each.name,
                "epoch": each.epoch,
                "state": each.state,
                "listed": each.size,
            }
            for each in nodes
        ]
        rows = [
            (
                each["node"],
                each["state"],
                each["listed"],
                each.get("started"),
                each.get("version"),
                each.get("policy"),
                each.get("problem"),
            )
            for each in objects
        ]
        headings = ("NODE", "STATE", "CLIENTS", "STARTED", "VERSION", "POLICY", "PROBLEM")
        self.show(objects, *table(headings, rows))
        return ExitCode.OK if all(each.present for each in nodes) else ExitCode.FAILED


class FleetList(FleetCommand):
    """
    List the clients of all nodes, or of one.
    """

    synopsis = "[options] [NODE]"

    def parseArgs(self, node: str | None = None) -> None:
        """
        Take a node's name.
        """
        self["node"] = None if node is None else _name(node)

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        List them.
        """
        if self["node"] is None:
            nodes = await fleet.nodes(clients=True)
        else:
            nodes = [await _find(fleet, self["node"], clients=True)]
        objects = [
            {"node": node.name, "id": each["id"], "epoch": node.epoch, "node_state": node.state}
            | {name: value for name, value in each.items() if name not in ("node", "epoch")}
            for node in nodes
            for each in node.clients
        ]
        rows = [
            (
                f"{each['node']}/{each['id']}",
                each.get("transport"),
                each.get("address") or f"pid {each.get('pid')}",
                who(each),
                each.get("since"),
                each.get("phase"),
                each.get("keepalive_asked"),
                each.get("opened"),
            )
            for each in objects
        ]
        headings = ("CLIENT", "TRANSPORT", "FROM", "WHO", "SINCE", "PHASE", "KEEPALIVE", "OPENED")
        return self.show(objects, *table(headings, rows), *_doubts(nodes))


class FleetRefused(FleetCommand):
    """
    List clients that were refused, or would be in mode 2.
    """

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        List them.
        """
        nodes = await fleet.nodes()
        objects = [{"node": node.name, **each} for node in nodes for each in node.refused]
        rows = [
            (
                each["node"],
                each.get("host"),
                who(each),
                each.get("refused"),
                each.get("would_refuse"),
                each.get("last"),
            )
            for each in objects
        ]
        headings = ("NODE", "HOST", "WHO", "REFUSED", "WOULD REFUSE", "LAST")
        return self.show(objects, *table(headings, rows))


class FleetDisconnect(FleetCommand):
    """
    Disconnect one client.
    """

    synopsis = "[options] NODE/ID"
    optParameters: ClassVar = [
        ["reason", "r", None, "The reason, for the client, the log and kaproto ended."]
    ]

    def parseArgs(self, which: str) -> None:  # type: ignore[override]
        """
        Take the node's name and the client's id.
        """
        node, slash, number = which.rpartition("/")
        if not slash or not (number.isascii() and number.isdecimal()) or int(number) >= 1 << 64:
            raise UsageError(
                f"with --registry a client is NODE/ID, as kaproto list shows it, not {which!r}"
            )
        self["node"], self["id"] = _name(node), int(number)

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        Disconnect it.
        """
        node = await _find(fleet, self["node"])
        await fleet.order(node, self["id"], self["reason"], reactor)
        return self.show(
            [{"node": node.name, "id": self["id"]}],
            f"client {node.name}/{self['id']} is disconnected",
        )


class FleetDrain(FleetCommand):
    """
    Make a node accept no new clients, and stop when the present ones have left.
    """

    synopsis = "[options] NODE"

    def parseArgs(self, node: str) -> None:  # type: ignore[override]
        """
        Take the node's name.
        """
        self["node"] = _name(node)

    async def perform(self, fleet: FleetView, reactor: IReactorTime) -> int:
        """
        Drain.
        """
        node = await _find(fleet, self["node"])
        await fleet.order(node, None, None, reactor)
        return self.show(
            [{"node": node.name, "clients": node.size}],
            f"node {node.name} accepts no new clients; {node.size} were listed there",
        )


def _name(node: str) -> str:
    """
    @raise UsageError: when it is not a valid node name.
    """
    if not NODE_NAME.fullmatch(node):
        raise UsageError(f"{node!r} is not the name of a node, as kaproto nodes shows it")
    return node


async def _find(fleet: FleetView, name: str, *, clients: bool = False) -> NodeView:
    node = await fleet.node(name, clients=clients)
    if node is None:
        raise CommandFailed(f"the registry has no node {name}; kaproto nodes lists them")
    return node


def _doubts(nodes: Sequence[NodeView]) -> list[str]:
    """
    @return: warnings about nodes whose list of clients may be wrong.
    """
    gone = ", ".join(each.name for each in nodes if not each.present)
    listing = ", ".join(each.name for each in nodes if each.present and not each.complete)
    return [
        *([f"gone, with the clients that it had when it last wrote: {gone}"] if gone else []),
        *([f"not all clients are listed yet: {listing}"] if listing else []),
    ]
