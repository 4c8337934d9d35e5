//! A gateway that gets its certificates itself, from a real authority for tests.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use support::{
    app::App,
    gateway::{Gateway, Options, Route},
    http::secure,
    namespace::inside,
    pebble::Pebble,
    wait,
};
use tokio::net::TcpStream;

const HOST: &str = "wiki.corp.example";

/// Who trusts this authority alone.
fn trusting(root_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The certificate that the gateway shows for a host; `None` if it is not one that `tls` trusts.
async fn leaf(tls: &Arc<ClientConfig>, gateway: &Gateway, host: &str) -> Option<Vec<u8>> {
    let tcp = TcpStream::connect(("127.0.0.1", gateway.port)).await.ok()?;
    let stream = secure(tls, tcp, host).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().map(|leaf| leaf.to_vec())
}

/// Turns `autocert` on, and waits for the certificate.
async fn obtained(gateway: &Gateway, pebble: &Pebble, tls: &Arc<ClientConfig>) -> anyhow::Result<Vec<u8>> {
    let config = std::fs::read_to_string(gateway.config())?;
    let root = gateway.authority.root.display();
    let autocert =
        format!("autocert: true\nautocert_ca: {}\nautocert_trusted_ca_file: {root}\n", pebble.directory);
    gateway.write_config(&format!("{autocert}{config}"))?;
    gateway.reload()?;
    let line = gateway.log().line_with(&["certificate was obtained", HOST]).await;
    anyhow::ensure!(line.is_ok(), "{line:?}\n{}", pebble.log());
    wait::until("the new certificate", async || leaf(tls, gateway, HOST).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_certificate_gets_one_and_keeps_it_over_a_restart() {
    let app = App::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::web(HOST, app.address)]).await.unwrap();
    let pebble = Pebble::start(&gateway).await.unwrap();
    let tls = trusting(&pebble.root(&gateway).await.unwrap());
    assert_eq!(leaf(&tls, &gateway, HOST).await, None);

    let obtained = obtained(&gateway, &pebble, &tls).await.unwrap();
    // Hosts with a certificate in the configuration go on showing that one.
    assert_eq!(leaf(&tls, &gateway, "app.localhost").await, None);

    gateway.stop().await.unwrap();
    gateway.restart().await.unwrap();
    let kept = wait::until("the kept certificate", async || leaf(&tls, &gateway, HOST).await).await.unwrap();
    assert!(kept == obtained, "another certificate after the restart");
    assert_eq!(gateway.log().count("asking for a certificate"), 0);
}

/// In a namespace of its own: an authority looks at port 80 and at no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_on_port_443_proves_its_hosts_by_plain_http() {
    const STORY: &str = "autocert::a_gateway_that_is_not_on_port_443_proves_its_hosts_by_plain_http";
    if !inside(STORY, "nameserver 127.0.0.53\n").await.unwrap() {
        return;
    }
    let app = App::start().await.unwrap();
    let options = Options { more: "http_redirect_addr: 127.0.0.1:80\n", ..Options::default() };
    let routes = [Route::web(HOST, app.address)];
    let gateway = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let pebble = Pebble::start_for_http(&gateway).await.unwrap();
    let tls = trusting(&pebble.root(&gateway).await.unwrap());
    obtained(&gateway, &pebble, &tls).await.unwrap();
    assert_eq!(gateway.log().count("no certificate was obtained"), 0);
    let looked = pebble.log();
    assert!(looked.contains("validate w/ HTTP"), "{looked}");
}
