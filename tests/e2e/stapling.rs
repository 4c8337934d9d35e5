//! What an issuer says of a certificate, from a real responder to a real client: both are OpenSSL's.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use support::{
    app::App,
    gateway::{Gateway, Route},
    port,
    process::{Input, Process},
    wait,
};
use tokio::process::Command;

const HOST: &str = "wiki.corp.example";
const GOOD: &str = "Cert Status: good";

/// An authority's files, and its responder's port.
struct Issuing {
    root: PathBuf,
    key: PathBuf,
    /// The server's, with the authority behind it.
    chain: PathBuf,
    leaf: PathBuf,
    server_key: PathBuf,
    index: PathBuf,
    port: u16,
}

impl Issuing {
    /// Makes an authority and a certificate of it for [`HOST`] that names its responder.
    fn create(folder: &Path) -> anyhow::Result<Self> {
        let port = port::reserve()?;
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        root.distinguished_name.push(DnType::CommonName, "An authority that answers");
        let (root_pem, root_key_pem) = (root.self_signed(&root_key)?.pem(), root_key.serialize_pem());
        let issuer = Issuer::new(root, root_key);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec![HOST.to_owned()])?;
        leaf.serial_number = Some(SerialNumber::from(0x1234_u64));
        // Authority information access (RFC 5280, 4.2.2.1): one way, OCSP, at a URL.
        let url = format!("http://127.0.0.1:{port}/");
        let len = u8::try_from(url.len())?;
        let method = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
        let access = [&[0x30, len + 14, 0x30, len + 12][..], &method, &[0x86, len], url.as_bytes()].concat();
        leaf.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
        let leaf_pem = leaf.signed_by(&key, &issuer)?.pem();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            root: file("issuer.pem", &root_pem)?,
            key: file("issuer.key", &root_key_pem)?,
            chain: file("chain.pem", &format!("{leaf_pem}{root_pem}"))?,
            leaf: file("leaf.pem", &leaf_pem)?,
            server_key: file("server.key", &key.serialize_pem())?,
            index: file("index.txt", &format!("V\t401231235959Z\t\t1234\tunknown\t/CN={HOST}\n"))?,
            port,
        })
    }

    async fn responder(&self) -> anyhow::Result<Process> {
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-ndays", "1", "-port"]).arg(self.port.to_string());
        command.arg("-index").arg(&self.index).arg("-CA").arg(&self.root);
        command.arg("-rsigner").arg(&self.root).arg("-rkey").arg(&self.key);
        let responder = Process::spawn("openssl ocsp", &mut command, Input::None)?;
        // It answers one after another, and a connection that asks nothing would be the one.
        responder.errors.line_with("waiting for OCSP client connections").await?;
        Ok(responder)
    }

    /// Fetches what the responder says into a file, as an operator does.
    async fn fetch(&self, file: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("openssl");
        command.arg("ocsp").arg("-issuer").arg(&self.root).arg("-cert").arg(&self.leaf);
        command.arg("-CAfile").arg(&self.root).args(["-no_nonce", "-url"]);
        command.arg(format!("http://127.0.0.1:{}/", self.port)).arg("-respout").arg(file);
        said(command).await.map(|_| ())
    }

    /// What OpenSSL's client sees in the handshake, once it has believed the certificate.
    async fn seen(&self, gateway: &Gateway) -> anyhow::Result<String> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-status", "-verify_return_error", "-servername", HOST, "-connect"]);
        command.arg(format!("127.0.0.1:{}", gateway.port)).arg("-CAfile").arg(&self.root);
        said(command).await
    }
}

async fn said(mut command: Command) -> anyhow::Result<String> {
    let output = wait::within("openssl", command.stdin(std::process::Stdio::null()).output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

async fn sees(issuing: &Issuing, gateway: &Gateway, what: &str) -> anyhow::Result<()> {
    wait::until(what, async || issuing.seen(gateway).await.ok()?.contains(what).then_some(())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_shown_that_the_issuer_stands_by_the_certificate() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web(HOST, app.address)]).await.unwrap();
    let issuing = Issuing::create(gateway.folder()).unwrap();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let with = |more: &str| {
        let (chain, key) = (issuing.chain.display(), issuing.server_key.display());
        let entry = format!("certificates:\n  - cert: {chain}\n    key: {key}\n{more}");
        gateway.write_config(&config.replacen("certificates:\n", &entry, 1)).unwrap();
        gateway.reload().unwrap();
    };
    // Nobody answers: the certificate is shown alone.
    with("");
    sees(&issuing, &gateway, "OCSP response: no response sent").await.unwrap();

    let responder = issuing.responder().await.unwrap();
    let file = gateway.folder().join("staple.der");
    issuing.fetch(&file).await.unwrap();
    drop(responder);
    with(&format!("    ocsp: {}\n", file.display()));
    sees(&issuing, &gateway, GOOD).await.unwrap();

    // Another file is looked at as soon as it is there, and one that is of no use changes nothing.
    std::fs::write(&file, "nothing").unwrap();
    gateway.log().line_with(&["certificates[0].ocsp", "no OCSP response"]).await.unwrap();
    assert!(issuing.seen(&gateway).await.unwrap().contains(GOOD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_the_certificate_names_is_asked() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web(HOST, app.address)]).await.unwrap();
    let issuing = Issuing::create(gateway.folder()).unwrap();
    let _responder = issuing.responder().await.unwrap();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let (chain, key) = (issuing.chain.display(), issuing.server_key.display());
    let entry = format!("certificates:\n  - cert: {chain}\n    key: {key}\n");
    gateway.write_config(&config.replacen("certificates:\n", &entry, 1)).unwrap();
    gateway.reload().unwrap();
    sees(&issuing, &gateway, GOOD).await.unwrap();
    gateway.log().line_with(&["the issuer stands by a certificate"]).await.unwrap();
}
