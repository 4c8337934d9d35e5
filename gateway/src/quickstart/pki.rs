//! A certificate authority and a certificate for this machine's own names.
//!
//! The keys and the authority are made once and kept. The authority may vouch for names under `localhost` and for
//! loopback addresses only: whoever copies its key gains no other site in a browser that trusts it.

use std::{
    fs, io,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use pomerium_shared::clock::Now;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};

/// The names that the gateway answers to in the quickstart. No wildcard: TLS libraries take none directly under a
/// top-level name.
const NAMES: [&str; 5] = ["localhost", "authenticate.localhost", "app.localhost", "127.0.0.1", "::1"];

/// Clocks differ, and virtual machines wake up in the past.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Ten years: longer than anyone keeps a quickstart.
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The longest that browsers take from a server (398 days), less a day; each start makes a new one.
const LEAF_LIFETIME: Duration = Duration::from_secs(397 * 24 * 3600);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum PkiError {
    /// The folder or a file in it.
    #[error("the folder cannot be used; it must be writable by you")]
    Io(#[from] io::Error),
    /// A key or certificate that cannot be made or read.
    #[error(
        "a key or certificate cannot be made or read; delete ca.key, ca.pem and gateway.key to start anew"
    )]
    Certificate(#[from] rcgen::Error),
}

/// Makes `ca.pem`, `ca.key` and `gateway.key` in `folder` (0700) unless they are there, and a fresh `gateway.pem`.
pub(super) fn make(folder: &Path, now: Now) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let ca_key = key(&folder.join("ca.key"))?;
    let ca = ca_params(now)?;
    let ca_file = folder.join("ca.pem");
    if !ca_file.exists() {
        write(&ca_file, &ca.self_signed(&ca_key)?.pem())?;
    }
    let key = key(&folder.join("gateway.key"))?;
    let leaf = leaf_params(now)?.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
    write(&folder.join("gateway.pem"), &leaf.pem())?;
    Ok(())
}

fn ca_params(now: Now) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "Pomerium quickstart CA (this machine only)");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::V4(Ipv4Addr::LOCALHOST), 32)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::V6(Ipv6Addr::LOCALHOST), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params.not_before = (now.wall - BACKDATED).into();
    params.not_after = (now.wall + CA_LIFETIME).into();
    Ok(params)
}

fn leaf_params(now: Now) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now.wall - BACKDATED).into();
    params.not_after = (now.wall + LEAF_LIFETIME - BACKDATED).into();
    Ok(params)
}

/// The key in a file, made if it is not there.
fn key(file: &Path) -> Result<KeyPair, PkiError> {
    match fs::read_to_string(file) {
        Ok(pem) => Ok(KeyPair::from_pem(&pem)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            write(file, &key.serialize_pem())?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    // A draft that was left behind might have another mode, or lead elsewhere.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{RootCertStore, client::WebPkiServerVerifier};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

    use super::*;

    fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("quickstart");
        (parent, folder)
    }

    fn verify(folder: &Path, leaf: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), pomerium_shared::tls::provider())
                .build()
                .unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verifier: &dyn rustls::client::danger::ServerCertVerifier = &*verifier;
        verifier.verify_server_cert(
            leaf,
            &[],
            &name,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(Now::read().unix_seconds().unsigned_abs())),
        )?;
        Ok(())
    }

    #[test]
    fn keys_and_authority_are_made_once_and_for_their_owner_only() {
        let (_parent, folder) = folder();
        make(&folder, Now::read()).unwrap();
        let kept = ["ca.key", "ca.pem", "gateway.key"].map(|name| fs::read(folder.join(name)).unwrap());
        make(&folder, Now::read()).unwrap();
        assert_eq!(
            ["ca.key", "ca.pem", "gateway.key"].map(|name| fs::read(folder.join(name)).unwrap()),
            kept
        );
        for (name, mode) in [
            ("ca.key", 0o600),
            ("ca.pem", 0o600),
            ("gateway.key", 0o600),
            ("gateway.pem", 0o600),
            ("", 0o700),
        ] {
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
    }

    #[test]
    fn the_certificate_is_good_for_this_machines_names_also_after_a_restart() {
        let (_parent, folder) = folder();
        for _ in 0..2 {
            make(&folder, Now::read()).unwrap();
            let leaf = CertificateDer::from_pem_file(folder.join("gateway.pem")).unwrap();
            for name in NAMES {
                assert_eq!(verify(&folder, &leaf, name), Ok(()), "{name}");
            }
            assert!(verify(&folder, &leaf, "bank.example").is_err());
        }
    }

    #[test]
    fn a_stolen_authority_vouches_for_no_other_site() {
        let (_parent, folder) = folder();
        make(&folder, Now::read()).unwrap();
        let stolen = KeyPair::from_pem(&fs::read_to_string(folder.join("ca.key")).unwrap()).unwrap();
        let forged = CertificateParams::new(vec!["bank.example".to_owned()])
            .unwrap()
            .signed_by(
                &KeyPair::generate().unwrap(),
                &Issuer::from_params(&ca_params(Now::read()).unwrap(), &stolen),
            )
            .unwrap();
        assert!(verify(&folder, forged.der(), "bank.example").is_err());
    }

    #[test]
    fn a_folder_that_others_could_read_is_closed() {
        let (_parent, folder) = folder();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        make(&folder, Now::read()).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
