use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::config::{self, RouteFrom, Target};

async fn prepared(folder: &Path) -> Prepared {
    prepare(&Options { folder: folder.to_owned(), port: 8443 }).await.unwrap()
}

#[tokio::test]
async fn the_written_configuration_is_one_that_the_gateway_reads() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("it's \"$HOME\" ${HOME}");
    let prepared = prepared(&folder).await;
    assert_eq!(fs::metadata(&prepared.file).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = config::load(Some(&prepared.file), &|_| None, Path::new(".")).unwrap();
    let settings = loaded.settings;
    assert!(settings.address.ip().is_loopback());
    assert_eq!(settings.storage, config::Storage::Folder(folder.join("store")));
    assert_eq!(settings.identity_provider.issuer.host_str(), Some("127.0.0.1"));
    let kinds: Vec<_> = settings.routes.iter().map(|route| (&route.from, &route.target)).collect();
    assert!(matches!(
        kinds[..],
        [(RouteFrom::Http { .. }, Target::Http(_)), (RouteFrom::Tcp { .. }, Target::Tcp(_))]
    ));
    prepared.stop.cancel();
}

#[tokio::test]
async fn a_second_start_keeps_the_keys_and_shares_no_client_secret_with_the_first() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("quickstart");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let first = prepared(&folder).await;
    let (kept, config) = (["ca.key", "ca.pem", "gateway.key"].map(read), read("pomerium.yaml"));
    let second = prepared(&folder).await;
    assert_eq!(["ca.key", "ca.pem", "gateway.key"].map(read), kept);
    let secret =
        |config: &str| config.lines().find(|line| line.starts_with("idp_client_secret")).map(str::to_owned);
    assert_ne!(secret(&read("pomerium.yaml")), secret(&config));
    for prepared in [first, second] {
        prepared.stop.cancel();
        prepared.tracker.close();
        prepared.tracker.wait().await;
    }
}

#[test]
fn the_configuration_in_the_readme_loads() {
    let folder = tempfile::tempdir().unwrap();
    pki::make(folder.path(), Now::read()).unwrap();
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (yaml, _) = rest.split_once("```").unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, yaml.replace("/etc/pomerium-gateway", folder.path().to_str().unwrap())).unwrap();
    let environment = |name: &str| (name == "GOOGLE_CLIENT_SECRET").then(|| "a secret".to_owned());
    let loaded = config::load(Some(&file), &environment, Path::new(".")).unwrap();
    assert_eq!(loaded.settings.routes.len(), 3);
    assert!(loaded.warnings.is_empty());
}
