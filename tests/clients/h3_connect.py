"""Opens a QUIC connection of its own for each stream: HTTP/3 CONNECT by aioquic.

h3_connect.py PORT CA TOKEN DESTINATION COUNT: sends "stream N" on each of COUNT streams that are open at the same time, ends its
half, and prints what came back, a line a stream; or the status of a refusal.
"""

import asyncio
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Stream(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.status = asyncio.get_event_loop().create_future()
        self.ended = asyncio.get_event_loop().create_future()
        self.heard = b""

    def quic_event_received(self, event):
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived) and not self.status.done():
                self.status.set_result(dict(each.headers)[b":status"].decode())
            if isinstance(each, DataReceived):
                self.heard += each.data
            if getattr(each, "stream_ended", False) and not self.ended.done():
                self.ended.set_result(None)

    def ask(self, destination, token):
        self.id = self._quic.get_next_available_stream_id()
        headers = [(b":method", b"CONNECT"), (b":authority", destination), (b"authorization", b"Pomerium " + token)]
        self.http.send_headers(self.id, headers)
        self.transmit()

    def say(self, data):
        self.http.send_data(self.id, data, end_stream=True)
        self.transmit()


async def main(port, ca, token, destination, count):
    all_open, opened = asyncio.Event(), 0

    async def one(number):
        nonlocal opened
        settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
        settings.load_verify_locations(ca)
        async with connect("127.0.0.1", int(port), configuration=settings, create_protocol=Stream) as stream:
            stream.ask(destination.encode(), token.encode())
            status = await stream.status
            if status != "200":
                return status
            opened += 1
            if opened == int(count):
                all_open.set()
            await all_open.wait()
            stream.say(b"stream %d " % number)
            await stream.ended
            return stream.heard.decode()

    for line in await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(int(count)))), 60):
        print(line)


asyncio.run(main(*sys.argv[1:]))
