//! A certificate authority and a certificate for this machine's own names, made once and kept.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The names that the gateway answers to in the quickstart.
const NAMES: [&str; 5] = ["localhost", "*.localhost", "authenticate.localhost", "app.localhost", "127.0.0.1"];

/// Makes `ca.pem`, `ca.key`, `gateway.pem` and `gateway.key` in `folder` (0700), unless they are there.
pub(super) fn make(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if folder.join("gateway.pem").exists() {
        return Ok(());
    }
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "Pomerium quickstart CA (this machine only)");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &Issuer::from_params(&params, &ca_key))?;
    write(&folder.join("ca.key"), &ca_key.serialize_pem())?;
    write(&folder.join("ca.pem"), &ca.pem())?;
    write(&folder.join("gateway.key"), &key.serialize_pem())?;
    write(&folder.join("gateway.pem"), &certificate.pem())?;
    Ok(())
}

/// Writes a file that only its owner may read.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("quickstart");
        make(&folder).unwrap();
        let key = fs::read(folder.join("gateway.key")).unwrap();
        make(&folder).unwrap();
        assert_eq!(fs::read(folder.join("gateway.key")).unwrap(), key);
        for (name, mode) in [("ca.key", 0o600), ("gateway.key", 0o600), ("", 0o700)] {
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
    }
}
