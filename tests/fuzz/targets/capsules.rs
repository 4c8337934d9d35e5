//! The stream of a flow of datagrams, in pieces of any length, and the paths that ask for one.
#![no_main]

use bytes::Bytes;
use pomerium_shared::udp::{PAYLOAD_LEN_MAX, capsule::CapsuleReader, path};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((piece_len, stream)) = input.split_first() else { return };
    let mut reader = CapsuleReader::default();
    'stream: for piece in stream.chunks(usize::from(*piece_len).max(1)) {
        reader.push(Bytes::copy_from_slice(piece).into());
        loop {
            match reader.next_payload() {
                Ok(Some(payload)) => assert!(payload.len() <= PAYLOAD_LEN_MAX),
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    if let Some(to) = std::str::from_utf8(stream).ok().and_then(path::parse) {
        assert_eq!(path::parse(&path::of(&to)), Some(to));
    }
});
