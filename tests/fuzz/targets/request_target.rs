//! Host and path of a request: what is taken has one form, and reading it again changes nothing.
#![no_main]

use pomerium_gateway::fuzzing;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (host, path) = text.split_once('\n').unwrap_or(("", text));
    if let Some(canonical) = fuzzing::canonical_path(path) {
        assert!(canonical.starts_with('/') && !canonical.contains("//"), "{canonical:?}");
        assert!(!canonical.split('/').any(|segment| segment == "." || segment == ".."), "{canonical:?}");
        assert_eq!(fuzzing::canonical_path(&canonical).as_ref(), Some(&canonical));
    }
    if let Some(canonical) = fuzzing::canonical_authority(host) {
        assert!(!canonical.contains(['/', '@', ' ', '\\']), "{canonical:?}");
        assert_eq!(fuzzing::canonical_authority(&canonical).as_ref(), Some(&canonical));
    }
});
