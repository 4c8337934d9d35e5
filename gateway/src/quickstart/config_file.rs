//! The quickstart's configuration: an ordinary file, to be read and copied.

use std::{io, path::PathBuf};

use super::{Options, parts::Ports, pki};

/// Writes `pomerium.yaml` and returns its path.
pub(super) fn write(options: &Options, ports: Ports) -> io::Result<PathBuf> {
    let file = options.folder.join("pomerium.yaml");
    pki::write(&file, &text(options, ports))?;
    Ok(file)
}

fn text(options: &Options, ports: Ports) -> String {
    let (port, folder) = (options.port, options.folder.display());
    let Ports { identity_provider, app, service } = ports;
    format!(
        r#"# Written by `pomerium-gateway quickstart`, anew at each start.
address: 127.0.0.1:{port}
authenticate_service_url: https://authenticate.localhost:{port}
certificates:
  - cert: "{folder}/gateway.pem"
    key: "{folder}/gateway.key"
databroker_storage_type: file
databroker_storage_connection_string: "file://{folder}/store"

# The development identity provider: it signs in whoever clicks. Never use it elsewhere.
idp_provider: oidc
idp_provider_url: http://127.0.0.1:{identity_provider}
idp_client_id: quickstart
idp_client_secret: quickstart-only

routes:
  - name: Internal app
    from: https://app.localhost:{port}
    to: http://127.0.0.1:{app}
    pass_identity_headers: true
    show_error_details: true
    policy:
      - allow:
          or:
            - email: alice@corp.example
  - name: Hello service
    from: tcp+https://hello.corp.example:7000
    to: tcp://127.0.0.1:{service}
    policy:
      - allow:
          or:
            - email: alice@corp.example
"#
    )
}
