"""Puts packets on a device that no honest machine sends: bad_packets.py DEVICE ADDRESS PORT, all from this machine."""

import socket
import struct
import sys
import time

device, address, port = sys.argv[1], socket.inet_aton(sys.argv[2]), int(sys.argv[3])
HERE = socket.inet_aton("100.64.0.1")
TCP, UDP = 6, 17
out = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)


def checksum(octets):
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(protocol, payload, source=HERE, fragment=0, length=None, version=0x45):
    length = 20 + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH4s4s", version, 0, length, 1, fragment, 64, protocol, 0, source, address)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def syn(source, source_port, is_right=True):
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 64240, 0, 0)
    pseudo = source + address + struct.pack("!BBH", 0, TCP, len(segment))
    right = checksum(pseudo + segment)
    segment = segment[:16] + struct.pack("!H", right if is_right else right ^ 0x5555) + segment[18:]
    return ip(TCP, segment, source)


def send(packet):
    out.sendto(packet, (device, 0x0800))


for number in range(10):
    send(ip(UDP, b"a part of something", fragment=0x2000))
for number in range(20):
    send(syn(HERE, 20000 + number, is_right=False))
for source in (b"\x7f\0\0\1", b"\xe0\0\0\1", address):
    for number in range(10):
        send(syn(source, 30000 + number))
for number in range(20):
    send(ip(TCP, b"short", length=1000))
    send(ip(TCP, b"short", version=0x42))
for number in range(5000):
    source = socket.inet_aton(f"198.18.{number >> 8}.{number & 255}")
    send(syn(source, 1024 + number))
    if number % 100 == 99:
        # The device's queue is short, and what does not fit is nobody's to count.
        time.sleep(0.005)
