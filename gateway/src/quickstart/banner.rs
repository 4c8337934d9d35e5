//! The next lines to type, in order.

use super::Options;

/// What the terminal shows once the gateway accepts connections.
pub(super) fn text(options: &Options) -> String {
    let port = options.port;
    let folder = options.folder.display().to_string();
    let ca = shell_word(&format!("{folder}/ca.pem"));
    let cli = "cargo run --release -q -p pomerium-cli --";
    let gateway = format!("https://localhost:{port}");
    format!(
        r#"
The gateway is up. Its sign-in is a development identity provider: not for production.

In another terminal, in this folder, in this order:

1. Sign in. A page opens in your browser; choose "alice":

   {cli} login {gateway} --alternate-ca-path {ca}

2. Reach a TCP service that only the gateway can reach:

   {cli} tcp hello.corp.example:7000 --pomerium-url {gateway} --alternate-ca-path {ca} --listen 127.0.0.1:7000

   and from a third terminal talk to it; it greets you and repeats what you type:

   nc 127.0.0.1 7000

3. See the internal web app, which shows who it thinks you are:

   https://app.localhost:{port}

   Your browser warns of the certificate until it trusts {folder}/ca.pem,
   an authority that can vouch for names under "localhost" only. Without a browser, this shows the way to sign-in:

   curl -i --cacert {ca} --resolve app.localhost:{port}:127.0.0.1 https://app.localhost:{port}/

4. Be refused: sign out in the browser and in the client, then repeat steps 1 to 3 and choose "bob". Each says why.

   https://app.localhost:{port}/.pomerium/sign_out
   {cli} logout {gateway} --alternate-ca-path {ca}

Keys, sessions and the configuration (pomerium.yaml, an ordinary one to start from) are in
{folder}
Ctrl-C stops everything; the next start keeps the keys.
"#
    )
}

/// A word that a POSIX shell takes as it is.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(folder: &str, port: u16) -> String {
        text(&Options { folder: folder.into(), port })
    }

    #[test]
    fn the_lines_to_type_are_whole_and_in_order() {
        let banner = of("/home/me/.local/share/pomerium-quickstart", 8443);
        let commands: Vec<&str> = banner.lines().filter_map(|line| line.strip_prefix("   ")).collect();
        let ca = "/home/me/.local/share/pomerium-quickstart/ca.pem";
        let cli = "cargo run --release -q -p pomerium-cli --";
        let expected = [
            format!("{cli} login https://localhost:8443 --alternate-ca-path {ca}"),
            format!(
                "{cli} tcp hello.corp.example:7000 --pomerium-url https://localhost:8443 --alternate-ca-path {ca} --listen 127.0.0.1:7000"
            ),
            "nc 127.0.0.1 7000".to_owned(),
            "https://app.localhost:8443".to_owned(),
            format!(
                "curl -i --cacert {ca} --resolve app.localhost:8443:127.0.0.1 https://app.localhost:8443/"
            ),
            "https://app.localhost:8443/.pomerium/sign_out".to_owned(),
            format!("{cli} logout https://localhost:8443 --alternate-ca-path {ca}"),
        ];
        let typed: Vec<&str> = commands
            .into_iter()
            .filter(|line| ["cargo ", "nc ", "curl ", "https://"].iter().any(|start| line.starts_with(start)))
            .collect();
        assert_eq!(typed, expected);
    }

    #[test]
    fn a_folder_with_blanks_and_quotes_stays_one_word() {
        let banner = of("/tmp/it's here", 9000);
        assert!(banner.contains(r"--alternate-ca-path '/tmp/it'\''s here/ca.pem'"), "{banner}");
        assert!(banner.contains("https://localhost:9000"));
    }
}
