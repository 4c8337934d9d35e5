//! What the two ends read from each other: destinations, problem documents, posture reports.
#![no_main]

use pomerium_shared::{destination::Destination, posture::PostureReport, problem::Problem};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(destination) = text.parse::<Destination>() {
        let shown = destination.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&destination), "{shown:?}");
    }
    if let Ok(problem) = serde_json::from_str::<Problem>(text) {
        assert!(serde_json::to_string(&problem).is_ok());
    }
    if let Ok(report) = serde_json::from_str::<PostureReport>(text) {
        let again = serde_json::to_string(&report).ok().and_then(|text| serde_json::from_str(&text).ok());
        assert_eq!(again, Some(report));
    }
});
