//! Secrets, keys and certificates: inline or in a file, decoded and checked.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::pkcs8::DecodePrivateKey;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};

use super::{
    Certificate,
    section::{Reading, Section},
};
use crate::{
    ocsp::{self, OcspError, Staple},
    secret::Secret,
    yaml::Position,
};

/// Bytes of a key, certificate or secret file at most; the system's whole root bundle is a quarter of it.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Bytes of a database of addresses at most; the largest of MaxMind's are half of it.
const DATABASE_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Reads a file named in the configuration, relative to its folder; the file is watched from then on.
pub(super) fn read_file(reading: &Reading<'_>, name: &str) -> Result<Vec<u8>, String> {
    read_watched(reading, name, FILE_LEN_MAX)
}

/// As [`read_file`], for what is large.
pub(super) fn read_database(reading: &Reading<'_>, name: &str) -> Result<Vec<u8>, String> {
    read_watched(reading, name, DATABASE_LEN_MAX)
}

fn read_watched(reading: &Reading<'_>, name: &str, len_max: u64) -> Result<Vec<u8>, String> {
    let path: PathBuf = reading.base_dir.join(name);
    reading.files.borrow_mut().push(path.clone());
    read_bounded(&path, len_max).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Reads an ordinary file of at most `len_max` bytes; pipes and devices could block or never end.
fn read_bounded(path: &Path, len_max: u64) -> std::io::Result<Vec<u8>> {
    let refuse = |message: String| Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    if !std::fs::metadata(path)?.is_file() {
        return refuse("it is not an ordinary file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        return refuse(format!("it is larger than {} MiB", len_max / (1024 * 1024)));
    }
    Ok(bytes)
}

impl Section<'_> {
    /// The key `name`, or what the file of `name_file` holds; both at once is an error. The second part says under
    /// which key it was found.
    pub(super) fn inline_or_file(&self, name: &str) -> Option<(Vec<u8>, String)> {
        let file_key = format!("{name}_file");
        match (self.filled(name), self.filled(&file_key)) {
            (Some(_), Some(_)) => {
                self.error(&file_key, format!("set either {name} or {file_key}, not both"));
                None
            }
            (Some(text), None) => Some((text.as_bytes().to_vec(), name.to_owned())),
            (None, Some(file)) => match read_file(self.reading, file) {
                Ok(bytes) => Some((bytes, file_key)),
                Err(message) => {
                    self.error(&file_key, message);
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// 32 bytes in Base64.
    pub(super) fn secret32(&self, name: &str) -> Option<Secret<[u8; 32]>> {
        let (bytes, key) = self.inline_or_file(name)?;
        if name == "shared_secret" && bytes.last().is_some_and(u8::is_ascii_whitespace) {
            self.error(&key, "ends in white space or a line break: remove it");
            return None;
        }
        let decoded =
            STANDARD.decode(bytes.trim_ascii()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        if decoded.is_none() {
            self.error(
                &key,
                "expected 32 random bytes in Base64: make them with `head -c32 /dev/urandom | base64`",
            );
        }
        decoded.map(Secret::new)
    }

    /// A text; line breaks at the end of a file are not part of it.
    pub(super) fn secret_text(&self, name: &str) -> Option<Secret<String>> {
        let (bytes, key) = self.inline_or_file(name)?;
        match String::from_utf8(bytes) {
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(_) => {
                self.error(&key, "is not UTF-8 text");
                None
            }
        }
    }

    /// PEM as it is or in Base64.
    fn pem(&self, name: &str) -> Option<(Vec<u8>, String)> {
        let (bytes, key) = self.inline_or_file(name)?;
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Some((bytes, key));
        }
        let compact: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        match STANDARD.decode(compact) {
            Ok(pem) => Some((pem, key)),
            Err(_) => {
                self.error(&key, "expected PEM (-----BEGIN ...), as it is or in Base64");
                None
            }
        }
    }

    /// The certificate `cert_name` with the key `key_name`; one without the other is an error.
    pub(super) fn certificate(&self, cert_name: &str, key_name: &str) -> Option<Certificate> {
        let (cert, key) = (self.pem(cert_name), self.pem(key_name));
        let given = |name: &str| self.has(name) || self.has(&format!("{name}_file"));
        if given(cert_name) != given(key_name) {
            let (there, missing) =
                if given(cert_name) { (cert_name, key_name) } else { (key_name, cert_name) };
            self.error(&self.given(there), format!("needs {missing} or {missing}_file beside it"));
        }
        let ((cert, cert_key), (key, _)) = (cert?, key?);
        match certificate(&cert, &key) {
            Ok(certificate) => Some(certificate),
            Err(message) => {
                self.error(&cert_key, message);
                None
            }
        }
    }

    /// What the issuer of `chain` says, from the file of `ocsp`. That it says no is no reason not to start.
    fn staple(&self, chain: &[CertificateDer<'static>]) -> Option<Staple> {
        const NAME: &str = "ocsp";
        let der = match read_file(self.reading, self.filled(NAME)?) {
            Ok(der) => der,
            Err(message) => {
                self.error(NAME, message);
                return None;
            }
        };
        match ocsp::read(&der, chain) {
            Ok(staple) => Some(staple),
            Err(error @ (OcspError::Revoked | OcspError::Unknown | OcspError::NoAnswer)) => {
                self.warn(NAME, format!("is not shown to clients: {error}"));
                None
            }
            Err(error) => {
                self.error(NAME, error.to_string());
                None
            }
        }
    }

    /// An entry of `certificates`: the names of two files, or three.
    pub(super) fn certificate_files(&self) -> Option<Certificate> {
        let read = |name: &str| {
            let Some(file) = self.filled(name) else {
                self.error(name, "is missing: name a PEM file");
                return None;
            };
            read_file(self.reading, file).map_err(|message| self.error(name, message)).ok()
        };
        let (cert, key) = (read("cert"), read("key"));
        match certificate(&cert?, &key?) {
            Ok(certificate) => Some(Certificate { staple: self.staple(&certificate.chain), ..certificate }),
            Err(message) => {
                self.error("cert", message);
                None
            }
        }
    }

    /// Root certificates, at least one.
    pub(super) fn roots(&self, name: &str) -> Option<Vec<CertificateDer<'static>>> {
        let (pem, key) = self.pem(name)?;
        match chain(&pem) {
            Ok(roots) => Some(roots),
            Err(message) => {
                self.error(&key, message);
                None
            }
        }
    }

    /// Revocation lists, at least one.
    pub(super) fn revocation_lists(&self, name: &str) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let (pem, key) = self.pem(name)?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let message = match lists {
            Ok(lists) if lists.is_empty() => "holds no revocation list in PEM".to_owned(),
            Ok(lists) => return Some(lists),
            Err(error) => format!("is not valid PEM: {error}"),
        };
        self.error(&key, message);
        None
    }

    /// Under which of its two keys a value is given, inline or as a file.
    pub(super) fn given(&self, name: &str) -> String {
        if self.has(name) { name.to_owned() } else { format!("{name}_file") }
    }

    /// The PEM blocks of P-256 private keys, in order.
    pub(super) fn signing_keys(&self) -> Vec<Secret<String>> {
        let Some((pem, key)) = self.pem("signing_key") else { return Vec::new() };
        let at = self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.at);
        match String::from_utf8(pem) {
            Ok(text) => private_blocks(self, &text, at, &key),
            Err(_) => {
                self.error(&key, "is not PEM text");
                Vec::new()
            }
        }
    }
}

fn private_blocks(section: &Section<'_>, text: &str, at: Position, key: &str) -> Vec<Secret<String>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let Some(end) = rest[start..].find("-----END ") else { break };
        let tail = &rest[start + end + "-----END ".len()..];
        let Some(close) = tail.find("-----") else { break };
        let block = &rest[start..rest.len() - tail.len() + close + "-----".len()];
        rest = &tail[close + "-----".len()..];
        // openssl writes these before a SEC 1 key; they say nothing that the key does not.
        if block.starts_with("-----BEGIN EC PARAMETERS-----") {
            continue;
        }
        if is_p256(block) {
            blocks.push(Secret::new(format!("{block}\n")));
        } else {
            section.error_at(at, key, "expected private keys on the curve P-256 (other kinds are not built)");
        }
    }
    if blocks.is_empty() && section.reading.said.borrow().iter().all(|said| said.key != section.key(key)) {
        section.error_at(at, key, "holds no private key in PEM");
    }
    blocks
}

fn is_p256(block: &str) -> bool {
    match PrivateKeyDer::from_pem_slice(block.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => p256::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).is_ok(),
        Ok(PrivateKeyDer::Sec1(der)) => p256::SecretKey::from_sec1_der(der.secret_sec1_der()).is_ok(),
        _ => false,
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is not valid PEM: {error}")),
    }
}

/// Chain and key that belong together.
fn certificate(cert: &[u8], key: &[u8]) -> Result<Certificate, String> {
    let chain = chain(cert).map_err(|message| format!("the certificate {message}"))?;
    // The library's error could quote the key's own bytes.
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key holds no private key in PEM".to_owned())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
        .map_err(|error| format!("the certificate and its key do not fit: {error}"))?;
    Ok(Certificate { chain, key, staple: None })
}
