//! The quickstart's configuration: an ordinary file, to be read and copied.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Options,
    dev_idp::CLIENT_ID,
    parts::{ALLOWED_EMAIL, APP_HOST, Parts, SERVICE},
    pki,
};

/// Writes `pomerium.yaml` and returns its path.
pub(super) fn write(options: &Options, parts: &Parts) -> io::Result<PathBuf> {
    let file = options.folder.join("pomerium.yaml");
    pki::write(&file, &text(options, parts)?)?;
    Ok(file)
}

fn text(options: &Options, parts: &Parts) -> io::Result<String> {
    let Options { port, folder } = options;
    let Parts { identity_provider, client_secret, app, service } = parts;
    let (certificate, key) =
        (quoted("", &folder.join("gateway.pem"))?, quoted("", &folder.join("gateway.key"))?);
    let store = quoted("file://", &folder.join("store"))?;
    let client_secret = client_secret.expose();
    Ok(format!(
        r#"# Written by `pomerium-gateway quickstart`, anew at each start.
address: 127.0.0.1:{port}
authenticate_service_url: https://authenticate.localhost:{port}
certificates:
  - cert: {certificate}
    key: {key}

# Sessions are kept here; shared_secret and cookie_secret are made here too, where none are given.
databroker_storage_type: file
databroker_storage_connection_string: {store}

# The development identity provider: it signs in whoever clicks. Never use it elsewhere.
idp_provider: oidc
idp_provider_url: http://127.0.0.1:{identity_provider}
idp_client_id: {CLIENT_ID}
idp_client_secret: {client_secret}

routes:
  - name: Internal app
    from: https://{APP_HOST}:{port}
    to: http://127.0.0.1:{app}
    pass_identity_headers: true
    show_error_details: true
    policy:
      - allow:
          or:
            - email:
                is: {ALLOWED_EMAIL}
  - name: Hello service
    from: tcp+https://{SERVICE}
    to: tcp://127.0.0.1:{service}
    policy:
      - allow:
          or:
            - email:
                is: {ALLOWED_EMAIL}
"#
    ))
}

/// A path behind `prefix` as a double-quoted YAML scalar that the loader expands back to exactly this text.
fn quoted(prefix: &str, path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the folder's name is not UTF-8: choose another with --data-dir",
        )
    })?;
    // JSON's strings are YAML's double-quoted ones (YAML 1.2.2, 1.1); `$$` is the loader's word for `$`.
    Ok(serde_json::Value::from(format!("{prefix}{}", text.replace('$', "$$"))).to_string())
}
