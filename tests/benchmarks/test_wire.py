"""A wire that is cut."""

from __future__ import annotations

import asyncio

from benchmarks.wire import wire_to


async def test_what_is_sent_over_a_connection_that_was_cut_is_lost_and_a_new_one_is_good() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with wire_to(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as (url, wire):
        host, port = url.split(":")
        old_reader, old = await asyncio.open_connection(host, int(port))
        old.write(b"before")
        assert await old_reader.readexactly(6) == b"before"
        wire.cut()
        old.write(b"lost")
        reader, new = await asyncio.open_connection(host, int(port))
        new.write(b"after")
        assert await reader.readexactly(5) == b"after"
        assert not old_reader.at_eof()
        new.close()
        old.close()
    server.close()
