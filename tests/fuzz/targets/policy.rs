//! A policy: it loads or says where it is wrong; one that loads decides, and lets nobody in whom no rule allows.
#![no_main]

use pomerium_gateway::{
    authorize::{Policy, ShortForms, ppl},
    yaml,
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(node) = yaml::parse(text) else { return };
    match ppl::parse(&node) {
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| !error.to_string().is_empty()))
        }
        Ok(tree) => {
            let policy = Policy::build(Some(&node), &ShortForms::default());
            assert!(policy.is_ok(), "a tree without a policy: {tree:?}");
        }
    }
});
