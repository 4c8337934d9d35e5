//! Opens the person's browser.

use std::process::Stdio;

use tokio::process::Command;
use url::Url;

/// How the sign-in page is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Browser {
    /// With the desktop's own opener.
    Desktop,
    /// With this command line; the URL becomes its last argument.
    Command(String),
    /// Not at all: the person copies the URL.
    None,
}

/// No browser was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowserError {
    /// The gateway sent something that is no web address; it is never handed to a program.
    #[error("the sign-in address is not a web address")]
    NotWeb,
    /// The command line is empty.
    #[error("--browser-cmd is empty")]
    Empty,
    /// The program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Browser {
    /// Starts the browser and does not wait for it.
    pub(crate) fn open(&self, url: &Url) -> Result<(), BrowserError> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err(BrowserError::NotWeb);
        }
        let line = match self {
            Self::Desktop => "xdg-open",
            Self::Command(line) => line.as_str(),
            Self::None => return Ok(()),
        };
        // No shell: a URL may hold anything that a shell would run.
        let mut words = line.split_whitespace();
        let program = words.next().ok_or(BrowserError::Empty)?;
        Command::new(program)
            .args(words)
            .arg(url.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(drop)
            .map_err(|source| BrowserError::Start { program: program.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_reach_a_program() {
        for url in ["file:///etc/passwd", "javascript:alert(1)", "ssh://a.example"] {
            let opened = Browser::Command("false".to_owned()).open(&Url::parse(url).unwrap());
            assert!(matches!(opened, Err(BrowserError::NotWeb)), "{url}");
        }
    }

    #[test]
    fn an_empty_command_is_an_error_of_the_person() {
        let url = Url::parse("https://a.example").unwrap();
        assert!(matches!(Browser::Command(" ".to_owned()).open(&url), Err(BrowserError::Empty)));
    }
}
