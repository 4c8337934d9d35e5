//! A process of a real part: its output is kept, it ends with its owner, and its log is shown when a test fails.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, ChildStdin, Command},
    task::JoinSet,
};

use crate::{log::Log, wait};

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// What it wrote to standard output.
    pub output: Log,
    /// What it wrote to standard error.
    pub errors: Log,
    readers: JoinSet<()>,
}

impl Process {
    /// Starts `command`; standard input is a pipe if `input` says so.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, input: Input) -> anyhow::Result<Self> {
        let stdin = match input {
            Input::None => Stdio::null(),
            Input::Pipe => Stdio::piped(),
        };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        let (output, errors) = (Log::default(), Log::default());
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(output.clone().read(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(errors.clone().read(stderr));
        }
        Ok(Self { name: name.to_owned(), child, output, errors, readers })
    }

    /// Its standard input, once.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its number.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended already", self.name))
    }

    /// Sends a signal by name (`HUP`, `INT`, ...).
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let Some(id) = self.child.id() else { bail!("{} has ended already", self.name) };
        let status =
            std::process::Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status()?;
        if !status.success() {
            bail!("cannot send {signal} to {}", self.name);
        }
        Ok(())
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends and all it wrote is in the logs.
    ///
    /// # Errors
    /// It does not end within the limit.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::within(&what, self.ended()).await?
    }

    /// The same, however long it takes: for a process that has limits of its own.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait().await?;
        while self.readers.join_next().await.is_some() {}
        Ok(status)
    }
}

/// A command that another program is to run, in the environment that was meant for it: `outer` takes it as its last words.
#[must_use]
pub fn run_by(mut outer: Command, command: &Command) -> Command {
    let command = command.as_std();
    outer.arg(command.get_program()).args(command.get_args()).kill_on_drop(true);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Has a program do something, and gives what it says.
///
/// # Errors
/// It is not there, or fails.
pub async fn run(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(words).output().await.with_context(|| format!("no {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {errors}", words.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq)]
pub struct Stat {
    /// The process.
    pub id: u32,
    /// Its program, cut to 15 octets.
    pub name: String,
    /// Who started it.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// What it has used of the processors, itself and for it, in seconds.
    pub processor_seconds: f64,
}

impl Stat {
    /// Ticks in a second on every Linux that this runs on (`getconf CLK_TCK`).
    const TICKS: f64 = 100.0;

    /// Of a process that runs.
    #[must_use]
    pub fn of(id: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// `None` for what is no such line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // `pid (name) state ppid pgrp ...`; the name may hold anything.
        let (id, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            id: id.parse().ok()?,
            name: name.to_owned(),
            parent: number(1)?,
            group: number(2)?,
            processor_seconds: (ticks(11)? + ticks(12)?) / Self::TICKS,
        })
    }
}

/// What a process has as standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing: end of file at once.
    None,
    /// A pipe that the owner takes.
    Pipe,
}

impl Process {
    /// Whether it leads a process group, so that all that it started can be ended with it.
    fn leads_group(id: u32) -> bool {
        Stat::of(id).is_some_and(|stat| stat.group == id)
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the test harness shows it under the failed test")]
    fn drop(&mut self) {
        if let Some(id) = self.child.id().filter(|id| Self::leads_group(*id)) {
            let group = format!("-{id}");
            // What has ended already needs no signal.
            let _ended = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        }
        if std::thread::panicking() {
            for (stream, log) in [("output", &self.output), ("errors", &self.errors)] {
                eprintln!("---- {} ({stream})\n{}", self.name, log.text());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let line = "7 (a) b (c) S 3 5 5 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 9 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.id, stat.name.as_str(), stat.parent, stat.group), (7, "a) b (c", 3, 5));
        assert!((stat.processor_seconds - 2.0).abs() < 1e-9, "{}", stat.processor_seconds);
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::of(std::process::id()).unwrap().id, std::process::id());
    }
}
