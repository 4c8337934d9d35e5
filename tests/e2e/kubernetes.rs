//! `kubectl` with our credential plugin, to a web route.

use std::process::Stdio;

use support::{
    app::{App, GREETING},
    cli::Cli,
    gateway::{Gateway, Route, binary},
};
use tokio::process::Command;

/// The plugin's API that this `kubectl` speaks: `v1` is there since 1.22.
async fn version() -> &'static str {
    let output = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().await.unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let minor = said["clientVersion"]["minor"].as_str().unwrap_or_default();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap();
    if minor >= 22 { "v1" } else { "v1beta1" }
}

/// A kubeconfig for the route, whose user is the plugin.
async fn kubeconfig(cli: &Cli, gateway: &Gateway) -> String {
    let version = version().await;
    let words = cli.words(&[]).unwrap();
    // All but the gateway, which the plugin is told as its argument.
    let options: Vec<String> = words[3..].iter().map(|word| format!("{word:?}")).collect();
    let server = format!("https://localhost:{}", gateway.port);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: \"{server}\", certificate-authority: {:?}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users:\n- name: u\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/{version}\n      \
         command: {:?}\n      args: [k8s, exec-credential, \"{server}\", {}]\n      interactiveMode: Never\n",
        gateway.authority.root,
        binary("pomerium-cli").unwrap(),
        options.join(", "),
    )
}

async fn kubectl(cli: &Cli, config: &str) -> (bool, String) {
    let file = cli.cache().parent().unwrap().join("kubeconfig");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("kubectl");
    cli.environment(&mut command);
    command.arg("--kubeconfig").arg(file).args(["get", "--raw", "/api/v1/pods"]).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_gets_its_token_from_the_plugin_and_never_a_browser_it_did_not_ask_for() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("localhost", app.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let config = kubeconfig(&cli, &gateway).await;
    let (is_done, told) = kubectl(&cli, &config).await;
    assert!(!is_done && told.contains("nobody sits here"), "{told}");
    assert_eq!((cli.sign_ins(), app.requests()), (0, 0));

    // A person signs in once, in a terminal.
    let server = format!("https://localhost:{}", gateway.port);
    let mut words = cli.words(&[]).unwrap();
    words.drain(..3);
    let mut command = Command::new(binary("pomerium-cli").unwrap());
    cli.environment(&mut command);
    let output = command.args(["k8s", "exec-credential", &server]).args(&words).output().await.unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["kind"], cli.sign_ins()), (&"ExecCredential".into(), 1), "{}", cli.trouble());

    let (is_done, told) = kubectl(&cli, &config).await;
    assert!(is_done && told.contains(GREETING) && told.contains("alice@corp.example"), "{told}");
    assert_eq!(cli.sign_ins(), 1);

    let flushed = cli.plain(&["k8s", "flush-credentials"]).unwrap().status().await.unwrap();
    assert!(flushed.success());
    let (is_done, told) = kubectl(&cli, &config).await;
    assert!(!is_done && told.contains("nobody sits here"), "{told}");
}
