"""A way to a server that can be cut without a word, as by a firewall that forgets its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing


class Wire:
    """Carries connections to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Lose whatever is sent from now on over the connections there are, both ways; new ones are good."""
        self._cut.set()
        self._cut = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until its ends are closed."""
        cut = self._cut
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        with closing(back), closing(writer):
            await asyncio.gather(_pump(reader, back, cut), _pump(there, writer, cut))


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[tuple[str, Wire]]:
    """Lay a wire to a server on this machine, [scheme://]host:port; yields its own address, and the wire."""
    where, _, port = url.rpartition(":")
    wire = Wire(int(port))
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(wire.carry(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"{where}:{server.sockets[0].getsockname()[1]}", wire
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
    while content := await reader.read(1 << 16):
        if not cut.is_set():
            writer.write(content)
    writer.close()
