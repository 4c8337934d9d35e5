//! Makes `h3`'s CONNECT a CONNECT.
//!
//! `h3` writes `:scheme` and `:path` with every request; a plain CONNECT must have neither (RFC 9114, 4.4), and other
//! servers call it malformed.

use bytes::{BufMut as _, Bytes, BytesMut};

/// `HEADERS` (RFC 9114, 7.2.2).
const TYPE_HEADERS: u8 = 0x01;

/// An empty dynamic table, then `:method CONNECT` and `:scheme https` from the static one (RFC 9204, 4.5.1, 4.5.2 and
/// appendix A).
const CONNECT_HTTPS: [u8; 4] = [0x00, 0x00, 0xc0 | 15, 0xc0 | 23];

/// `:authority` with a value of its own (RFC 9204, 4.5.4).
const AUTHORITY: u8 = 0x50;

/// `:path /`.
const PATH_ROOT: u8 = 0xc0 | 1;

/// The frame without `:scheme` and `:path`, if it is the HEADERS of a CONNECT to an authority alone; any other frame as
/// it is. An extended CONNECT has a path other than `/` (RFC 9298, 3.1) and stays.
pub(super) fn plain_connect(frame: Bytes) -> Bytes {
    shortened(&frame).unwrap_or(frame)
}

fn shortened(frame: &[u8]) -> Option<Bytes> {
    let (&kind, rest) = frame.split_first()?;
    let length_len = 1_usize << (rest.first()? >> 6);
    let block = rest.get(length_len..)?;
    let fields = block.strip_prefix(&CONNECT_HTTPS)?;
    let (&AUTHORITY, value) = fields.split_first()? else { return None };
    // A prefix of seven bits (RFC 7541, 5.1); an authority takes at most two bytes of length behind it.
    let mut len = usize::from(value.first()? & 0x7f);
    let mut at = 1;
    if len == 0x7f {
        for shift in [0, 7] {
            let byte = *value.get(at)?;
            at += 1;
            len += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let (authority, behind) = value.split_at_checked(at + len)?;
    let (&PATH_ROOT, behind) = behind.split_first()? else { return None };
    if kind != TYPE_HEADERS {
        return None;
    }
    let len = 4 + authority.len() + behind.len();
    let mut out = BytesMut::with_capacity(len + 5);
    out.put_u8(TYPE_HEADERS);
    // Four bytes hold any field section that a peer takes (RFC 9000, 16).
    out.put_u32(0x8000_0000 | u32::try_from(len).ok()?);
    out.put_slice(&CONNECT_HTTPS[..3]);
    out.put_u8(AUTHORITY);
    out.put_slice(authority);
    out.put_slice(behind);
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_connect_loses_scheme_and_path() {
        let frame =
            [&[0x01, 10][..], &CONNECT_HTTPS, &[AUTHORITY, 3, b'a', b':', b'1', PATH_ROOT, 0x99]].concat();
        let expected = [1, 0x80, 0, 0, 9, 0, 0, 0xcf, AUTHORITY, 3, b'a', b':', b'1', 0x99];
        assert_eq!(plain_connect(frame.into()), &expected[..]);
    }

    proptest! {
        #[test]
        fn other_frames_stay_as_they_are(frame in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assume!(!frame.windows(4).any(|bytes| bytes == CONNECT_HTTPS));
            prop_assert_eq!(plain_connect(frame.clone().into()), frame);
        }
    }
}
