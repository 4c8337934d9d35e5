//! What `pomerium-cli doctor` and `pomerium-gateway doctor` say, in one form for people and for programs.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Works, with less than it could.
    Weak,
    /// In the way.
    Bad,
}

impl Grade {
    /// The word in front of a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Weak => "weak",
            Self::Bad => "BAD",
        }
    }
}

/// One thing that was looked at.
///
/// ```
/// use pomerium_shared::finding::{Finding, Grade};
/// let udp = Finding::of(Grade::Weak, "UDP", "port 443 is closed", "open it");
/// assert_eq!(Finding::text(&[udp]), "weak  UDP  port 443 is closed\n           -> open it\n\nNothing is in the way; 1 could be better.\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What was found.
    pub says: String,
    /// The next step, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_do: Option<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn good(about: &'static str, says: impl Into<String>) -> Self {
        Self { about, grade: Grade::Good, says: says.into(), to_do: None }
    }

    /// Not as it should be, and what to do.
    #[must_use]
    pub fn of(grade: Grade, about: &'static str, says: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { about, grade, says: says.into(), to_do: Some(to_do.into()) }
    }

    /// Nothing is known, for something that was needed for it failed.
    #[must_use]
    pub fn not_tried(about: &'static str) -> Self {
        let says = "not tried, for what it needs failed".to_owned();
        Self { about, grade: Grade::Weak, says, to_do: None }
    }

    /// How many are in the way.
    #[must_use]
    pub fn bad(findings: &[Self]) -> usize {
        findings.iter().filter(|finding| finding.grade == Grade::Bad).count()
    }

    /// All as lines, each next step below what it is for.
    #[must_use]
    pub fn text(findings: &[Self]) -> String {
        let width = findings.iter().map(|finding| finding.about.len()).max().unwrap_or(0);
        let mut text = String::new();
        for finding in findings {
            let grade = finding.grade.as_str();
            text.push_str(&format!("{grade:<4}  {:<width$}  {}\n", finding.about, finding.says));
            if let Some(to_do) = &finding.to_do {
                text.push_str(&format!("      {:<width$}  -> {to_do}\n", ""));
            }
        }
        let weak = findings.iter().filter(|finding| finding.grade == Grade::Weak).count();
        text.push_str(&match (Self::bad(findings), weak) {
            (0, 0) => "\nNothing is in the way.\n".to_owned(),
            (0, weak) => format!("\nNothing is in the way; {weak} could be better.\n"),
            (bad, weak) => {
                format!("\n{bad} in the way, {weak} could be better. Begin with the first line marked BAD.\n")
            }
        });
        text
    }
}
