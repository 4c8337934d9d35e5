//! MySQL: an ERR packet in the place of the server's greeting, as servers send it to hosts that they turn away.

use super::Why;

/// ER_HOST_NOT_PRIVILEGED and ER_CON_COUNT_ERROR: what a server says before it has greeted.
const NOT_ALLOWED: u16 = 1130;
const NOT_NOW: u16 = 1040;

pub(super) fn error(why: &Why) -> Vec<u8> {
    let code = if why.is_about_person() { NOT_ALLOWED } else { NOT_NOW };
    // Clients keep 512 bytes of it; before the greeting there is no SQL state.
    let text: String = why.text.chars().filter(char::is_ascii).take(500).collect();
    let payload = [&[0xff_u8][..], &code.to_le_bytes(), text.as_bytes()].concat();
    let len = u32::try_from(payload.len()).expect("the text is bounded").to_le_bytes();
    [&len[..3], &[0], &payload].concat()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::why, *};

    #[test]
    fn the_packet_has_its_length_and_the_reason() {
        let packet = error(&why());
        let len = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]);
        assert_eq!((usize::try_from(len).unwrap(), packet[3], packet[4]), (packet.len() - 4, 0, 0xff));
        assert_eq!(u16::from_le_bytes([packet[5], packet[6]]), NOT_ALLOWED);
        assert!(packet[7..].starts_with(b"you are not allowed"));
    }
}
