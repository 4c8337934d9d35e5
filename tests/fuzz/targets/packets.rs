//! What a peer sends through its tunnel: packets, some of them of connections that were accepted.
//!
//! The input is a row of packets, each behind its length (two octets) and an octet that says what happens after it. Checksums
//! are set right in most of them; without that nothing gets past the first check.
#![no_main]

use std::time::{Duration, Instant};

use pomerium_shared::{
    clock::Now,
    netstack::{
        Refusal,
        settings::Settings,
        stack::{Kind, Stack},
    },
};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut now = Now::read().monotonic;
    let mut stack = Stack::new(settings(), |_| true, now);
    let mut flows = Vec::new();
    let mut rest = input;
    while let Some(([high, low, after], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (packet, behind) = behind.split_at(len);
        rest = behind;
        let mut packet = packet.to_vec();
        if after & 0x80 == 0 {
            seal(&mut packet);
        }
        stack.receive(&packet, now);
        decide(&mut stack, &mut flows, *after, now);
        now += Duration::from_millis(u64::from(*after) * 50);
        stack.poll(now);
        while let Some(packet) = stack.next_packet() {
            assert!(packet.len() <= 1420, "a packet of {} octets", packet.len());
        }
    }
});

/// Small bounds, so that they are met.
fn settings() -> Settings {
    let mut settings = Settings::new(1);
    settings.half_open_max = 4;
    settings.flows_max = 6;
    settings.window = 4096;
    settings.own = vec![[100, 64, 0, 1].into()];
    settings
}

fn decide(
    stack: &mut Stack,
    flows: &mut Vec<pomerium_shared::netstack::FlowId>,
    what: u8,
    now: Instant,
) {
    while let Some(event) = stack.next_event() {
        match (event.kind, what & 3) {
            (Kind::Tcp, 0) => stack.refuse(event.id, Refusal::Prohibited),
            (Kind::Tcp, _) => {
                if stack.accept(event.id, now).is_ok() {
                    flows.push(event.id);
                }
            }
            (Kind::Udp, 0) => stack.refuse(event.id, Refusal::Reset),
            (Kind::Udp, _) => flows.push(event.id),
        }
    }
    let Some(&id) = flows.last() else { return };
    match what >> 2 & 7 {
        // What fails here has ended; the next call must bear it.
        0 => drop(stack.write(id, b"some octets", now).is_ok()),
        1 => drop(stack.read(id, <[u8]>::len).is_ok()),
        2 => stack.shutdown(id),
        3 => stack.abort(id),
        4 => drop(stack.read_datagram(id).is_ok()),
        5 => drop(stack.send_datagram(id, b"some octets", now).is_ok()),
        6 => {
            flows.pop();
            stack.leave(id, now);
        }
        _ => {}
    }
    while stack.next_ready().is_some() {}
}

/// Sets lengths and checksums right, where the packet has room for them.
fn seal(packet: &mut [u8]) {
    let Ok(len) = u16::try_from(packet.len()) else { return };
    let (start, protocol) = match packet.first().map(|octet| octet >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[10..12].fill(0);
            let sum = !folded(sum_of(&packet[..20]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (20, packet[9])
        }
        Some(6) if packet.len() >= 40 => {
            packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            (40, packet[6])
        }
        _ => return,
    };
    let at = start
        + match protocol {
            6 => 16,
            17 => 6,
            1 | 58 => 2,
            _ => return,
        };
    if packet.len() < at + 2 {
        return;
    }
    packet[at..at + 2].fill(0);
    let addresses = if start == 20 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = if protocol == 1 { 0 } else { sum_of(addresses) + u32::from(protocol) + u32::from(len) - start as u32 };
    let sum = !folded(pseudo + sum_of(&packet[start..]));
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn sum_of(octets: &[u8]) -> u32 {
    octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
