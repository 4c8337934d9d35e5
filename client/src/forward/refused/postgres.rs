//! PostgreSQL's frontend/backend protocol 3: an ErrorResponse to the start-up message.

use super::{Step, Why};

/// "Is TLS spoken?" and "is GSSAPI?": the code where the version would be.
const TLS_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const START_UP_LEN_MAX: u32 = 10_000;

/// A client may ask for encryption first, and is told that there is none here: it is the loopback address. What it says
/// then is its start-up message, which the error answers.
pub(super) fn step(heard: &[u8], why: &Why) -> Step {
    let Some((len, rest)) = heard.split_first_chunk::<4>() else { return Step::Hear };
    let len = u32::from_be_bytes(*len);
    let Some((code, _)) = rest.split_first_chunk::<4>() else { return Step::Hear };
    match u32::from_be_bytes(*code) {
        TLS_REQUEST | GSS_REQUEST => Step::Say(b"N".to_vec()),
        _ if len > START_UP_LEN_MAX => Step::End(error(why)),
        _ if usize::try_from(len).is_ok_and(|len| heard.len() < len) => Step::Hear,
        _ => Step::End(error(why)),
    }
}

fn error(why: &Why) -> Vec<u8> {
    // invalid_authorization_specification, or cannot_connect_now.
    let code = if why.is_about_person() { "28000" } else { "57P03" };
    let mut fields = Vec::new();
    for (kind, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', why.text.as_str())] {
        fields.push(kind);
        fields.extend(text.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    let len = u32::try_from(fields.len() + 4).expect("the text is bounded");
    [b"E", &len.to_be_bytes()[..], &fields].concat()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::why, *};

    #[test]
    fn a_client_is_asked_for_plain_text_and_then_told() {
        let mut tls = 8_u32.to_be_bytes().to_vec();
        tls.extend(TLS_REQUEST.to_be_bytes());
        assert_eq!(step(&tls[..6], &why()), Step::Hear);
        assert_eq!(step(&tls, &why()), Step::Say(b"N".to_vec()));
        let start = [&12_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"u\0\0\0"].concat();
        assert_eq!(step(&start[..10], &why()), Step::Hear);
        let Step::End(said) = step(&start, &why()) else { panic!("no answer") };
        assert_eq!(said[0], b'E');
        let len = u32::from_be_bytes(said[1..5].try_into().unwrap());
        assert_eq!(usize::try_from(len).unwrap(), said.len() - 1);
        let text = String::from_utf8(said[5..].to_vec()).unwrap();
        assert!(text.starts_with("SFATAL\0VFATAL\0C28000\0Myou are not allowed"), "{text:?}");
        assert!(text.ends_with("\0\0"));
    }
}
