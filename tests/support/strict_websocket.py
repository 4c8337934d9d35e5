"""A WebSocket server that keeps to RFC 6455 and RFC 7692, and echoes every message. Prints its port."""

import asyncio
import contextlib

import websockets


async def echo(socket, _path=None):
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        async for message in socket:
            await socket.send(message)


async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=2**24, ping_interval=None) as server:
        print("listens on", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
