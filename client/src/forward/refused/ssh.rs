//! SSH (RFC 4253): the version line, and SSH_MSG_DISCONNECT in an unencrypted packet.

use super::{Step, Why};

const DISCONNECT: u8 = 1;
/// SSH_DISCONNECT_HOST_NOT_ALLOWED_TO_CONNECT and SSH_DISCONNECT_SERVICE_NOT_AVAILABLE (11.1).
const NOT_ALLOWED: u32 = 1;
const NOT_AVAILABLE: u32 = 7;
/// A packet's length is a multiple of this before encryption begins (6).
const BLOCK_LEN: usize = 8;
const PADDING_LEN_MIN: usize = 4;

/// A client that has said its version is answered; one that waits for the server's gets no word of it meanwhile, but both may
/// speak at once (4.2).
pub(super) fn step(heard: &[u8], why: &Why) -> Step {
    if heard.starts_with(b"SSH-") && heard.contains(&b'\n') {
        Step::End([&b"SSH-2.0-pomerium\r\n"[..], &disconnect(why)].concat())
    } else {
        Step::Hear
    }
}

fn disconnect(why: &Why) -> Vec<u8> {
    let reason = if why.is_about_person() { NOT_ALLOWED } else { NOT_AVAILABLE };
    let text_len = u32::try_from(why.text.len()).expect("the text is bounded");
    let mut payload = vec![DISCONNECT];
    payload.extend(reason.to_be_bytes());
    payload.extend(text_len.to_be_bytes());
    payload.extend(why.text.as_bytes());
    payload.extend(0_u32.to_be_bytes());
    let unpadded = 4 + 1 + payload.len() + PADDING_LEN_MIN;
    let padding = PADDING_LEN_MIN + (BLOCK_LEN - unpadded % BLOCK_LEN) % BLOCK_LEN;
    let len = u32::try_from(1 + payload.len() + padding).expect("the text is bounded");
    let padding_len = u8::try_from(padding).expect("padding is shorter than two blocks");
    [&len.to_be_bytes()[..], &[padding_len], &payload, &vec![0; padding]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::why, *};

    #[test]
    fn a_client_is_told_once_it_has_said_its_version() {
        assert_eq!(step(b"", &why()), Step::Hear);
        assert_eq!(step(b"SSH-2.0-Open", &why()), Step::Hear);
        let Step::End(said) = step(b"SSH-2.0-OpenSSH_10.0\r\n", &why()) else { panic!("no answer") };
        assert!(said.starts_with(b"SSH-2.0-pomerium\r\n"));
        assert!(said.windows(19).any(|part| part == b"you are not allowed"));
    }

    proptest! {
        #[test]
        fn packets_are_whole_blocks(text in "[ -~]{0,300}") {
            let packet = disconnect(&Why { text, ..why() });
            prop_assert_eq!(packet.len() % BLOCK_LEN, 0);
            let len = u32::from_be_bytes(packet[..4].try_into().unwrap());
            prop_assert_eq!(usize::try_from(len).unwrap() + 4, packet.len());
            prop_assert!(usize::from(packet[4]) >= PADDING_LEN_MIN);
        }
    }
}
