//! Credentials and signed URLs of strangers: none is ever taken for one of ours.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use pomerium_gateway::{
    authenticate::signed_url,
    session::{credentials, handle::HandleKey},
};

const NAMES: [&str; 4] = ["cookie", "authorization", "x-pomerium-authorization", "authorization"];

libfuzzer_sys::fuzz_target!(|text: &str| {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let key = HandleKey::new([7; 32], "authenticate.corp.example");
    let mut headers = HeaderMap::new();
    let mut lines = text.lines();
    let query = lines.next();
    for (name, line) in NAMES.into_iter().zip(&mut lines) {
        if let Ok(value) = HeaderValue::from_str(line) {
            headers.append(name, value);
        }
    }
    for credential in credentials::from_headers(&headers, query, "_pomerium") {
        assert!(key.verify(credential.token.expose(), None, now).is_err(), "a stranger's handle was taken");
    }
    if let Ok(url) = url::Url::parse(text.lines().next().unwrap_or_default()) {
        assert!(
            signed_url::verify(&[7; 32], &url, Duration::ZERO, now).is_err(),
            "a stranger's URL was taken"
        );
    }
});
