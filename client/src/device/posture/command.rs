//! Asks a program of the system, and takes its answer only if it is quick and short.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Bytes of an answer at most.
const ANSWER_LEN_MAX: u64 = 16 * 1024;

/// What a program prints, however it ends; `None` when it is not there, too slow, or does not print text.
///
/// # Cancellation
/// Cancel-safe: the program is killed.
pub(crate) async fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut answer = String::new();
    let output = child.stdout.take()?;
    timeout(LIMIT, output.take(ANSWER_LEN_MAX).read_to_string(&mut answer)).await.ok()?.ok()?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_answers_or_nothing_is_known() {
        assert_eq!(ask("echo", &["yes"]).await.as_deref(), Some("yes\n"));
        assert_eq!(ask("no-such-program-anywhere", &[]).await, None);
        let endless = ask("yes", &[]).await.unwrap();
        assert_eq!(u64::try_from(endless.len()).unwrap(), ANSWER_LEN_MAX);
    }
}
