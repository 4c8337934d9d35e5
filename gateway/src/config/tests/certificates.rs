//! What issuers say of `certificates`.

use super::*;
use crate::ocsp::tests::{Authority, REVOKES_IT, STANDS_BY_IT, Said};

/// A configuration with a certificate of `authority`'s, and in the file of its `ocsp` what `by` says of it.
fn read_with(authority: &Authority, by: &Authority, said: &Said<'_>) -> Result<Loaded, ConfigErrors> {
    let dir = folder();
    let certificate = authority.server("http://ocsp.test/");
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let chain: String = certificate.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let files = [
        ("chain.pem", chain.into_bytes()),
        ("chain.key", pem("PRIVATE KEY", certificate.key.secret_der()).into_bytes()),
        ("staple.der", by.respond(&certificate.chain, said)),
    ];
    for (name, octets) in files {
        std::fs::write(dir.path().join(name), octets).unwrap();
    }
    let entry = "{cert: chain.pem, key: chain.key, ocsp: staple.der}";
    let text = minimal("").replace("{cert: cert.pem, key: key.pem}", entry);
    let env = environment(&[]);
    parse(&text, "pomerium.yaml", &|name| env.get(name).cloned(), dir.path())
}

#[test]
fn what_an_issuer_says_of_a_certificate_is_read_and_watched_beside_it() {
    let authority = Authority::new();
    let loaded = read_with(&authority, &authority, &STANDS_BY_IT).unwrap();
    assert!(loaded.settings.certificates[0].staple.is_some());
    assert!(loaded.files.iter().any(|file| file.ends_with("staple.der")), "{:?}", loaded.files);

    let loaded = read_with(&authority, &authority, &REVOKES_IT).unwrap();
    assert!(loaded.settings.certificates[0].staple.is_none(), "the gateway starts all the same");
    assert!(
        loaded.warnings.iter().any(|warning| warning.message.contains("revoked")),
        "{:?}",
        loaded.warnings
    );

    let errors = read_with(&authority, &Authority::new(), &STANDS_BY_IT).unwrap_err().to_string();
    assert!(
        errors.contains("certificates[0].ocsp: it is not signed by the certificate's issuer"),
        "{errors}"
    );
}
