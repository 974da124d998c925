import sys

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from kaproto.client import connect


async def main(reactor: IReactorTime, uri: str) -> None:
    connection = await connect(reactor, uri)
    connection.setKeepAlive(interval=5, count=5)
    print(await connection.hostname())
    await connection.close()


react(main, sys.argv[1:])
