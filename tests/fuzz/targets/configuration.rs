//! A configuration file: whatever it holds, it loads or says why not.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let outcome = pomerium_gateway::config::parse(text, "config.yaml", &|_| None, Path::new("/nonexistent"));
    if let Err(errors) = outcome {
        assert!(!errors.to_string().is_empty(), "a failure that says nothing");
    }
});
