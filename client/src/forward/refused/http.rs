//! HTTP/1.1: a page without script, which no cache keeps.

use super::{Step, Why};
use crate::exit::Exit;

pub(super) fn step(heard: &[u8], why: &Why) -> Step {
    let has_head = heard.windows(4).any(|part| part == b"\r\n\r\n");
    if has_head { Step::End(page(why)) } else { Step::Hear }
}

fn page(why: &Why) -> Vec<u8> {
    let status = match why.exit {
        Exit::NotAllowed => "403 Forbidden",
        Exit::NotSignedIn => "401 Unauthorized",
        Exit::AppDown => "502 Bad Gateway",
        Exit::Ours | Exit::Usage | Exit::Unreachable | Exit::Untrusted => "503 Service Unavailable",
    };
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status}</title><h1>{status}</h1><p>{}</p></html>\n",
        escaped(&why.text)
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::{super::tests::why, *};

    #[test]
    fn the_page_says_why_and_cannot_hold_markup() {
        assert_eq!(step(b"GET / HTTP/1.1\r\nHost: a\r\n", &why()), Step::Hear);
        let Step::End(said) = step(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &why()) else { panic!("no answer") };
        let text = String::from_utf8(said).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
        assert!(text.contains("&lt;b&gt; &amp; request id: r1") && !text.contains("<b>"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    }
}
