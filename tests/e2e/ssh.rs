//! ssh and scp through `ProxyCommand`.

use support::{
    app::hex,
    cli::Cli,
    gateway::{Gateway, Route},
    sshd::Sshd,
};
use tokio::process::Command;

const DESTINATION: &str = "ssh.corp.test:22";

/// Above what any buffer or window on the way could hide.
const LARGE_FILE_LEN: usize = 256 << 20;

async fn parts() -> anyhow::Result<(Sshd, Gateway)> {
    let sshd = Sshd::start().await?;
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, sshd.address)]).await?;
    Ok((sshd, gateway))
}

/// `ssh` or `scp` that reaches the server by the client alone.
fn through(cli: &Cli, sshd: &Sshd, program: &str) -> anyhow::Result<Command> {
    let proxy = cli.words(&["tcp", DESTINATION, "--listen", "-"])?.join(" ");
    let mut command = Command::new(program);
    command.args(sshd.client_options("ssh.corp.test")).args(["-o", &format!("ProxyCommand={proxy}")]);
    cli.environment(&mut command);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_runs_a_command_over_ssh() {
    let (sshd, gateway) = parts().await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    for _ in 0..2 {
        let mut ssh = through(&cli, &sshd, "ssh").unwrap();
        let output = ssh.args(["root@ssh.corp.test", "echo", "inside"]).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "inside\n", "{errors}\n{}", cli.trouble());
    }
    assert_eq!(cli.sign_ins(), 1, "the second ssh uses the first one's session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_arrives_whole_both_ways() {
    let (sshd, gateway) = parts().await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [original, there, back] = ["original", "there", "back"].map(|name| folder.path().join(name));
    let mut bytes = vec![0; LARGE_FILE_LEN];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    std::fs::write(&original, &bytes).unwrap();

    for (from, to) in [
        (original.display().to_string(), format!("root@ssh.corp.test:{}", there.display())),
        (format!("root@ssh.corp.test:{}", there.display()), back.display().to_string()),
    ] {
        let mut scp = through(&cli, &sshd, "scp").unwrap();
        let output = scp.args(["-q", &from, &to]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let sums = [original, there, back].map(|file| {
        let bytes = std::fs::read(file).unwrap();
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref())
    });
    assert_eq!(sums[0], sums[1], "up");
    assert_eq!(sums[0], sums[2], "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn bobs_ssh_never_reaches_the_server() {
    let (sshd, gateway) = parts().await.unwrap();
    let cli = Cli::new(&gateway, "bob").unwrap();
    let output =
        through(&cli, &sshd, "ssh").unwrap().args(["root@ssh.corp.test", "true"]).output().await.unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("email-unauthorized"), "{errors}");
    assert_eq!(sshd.log.lines().len(), 0, "{}", sshd.log.text());
}
