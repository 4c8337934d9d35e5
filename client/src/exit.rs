//! The one place where a failure becomes an exit code and words for a person.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | a fault of this program or machine |
//! | 64 | the command line is wrong |
//! | 67 | not signed in |
//! | 69 | the gateway cannot be reached |
//! | 74 | the app behind the gateway is down |
//! | 76 | the gateway's certificate is not trusted |
//! | 77 | not allowed |

use std::error::Error;

use pomerium_shared::reason::EndReason;

use crate::{
    failure::Failure,
    link::{LinkError, answer::Verdict},
    local_api::socket::SocketError,
    login::LoginError,
};

/// The table of codes as `--help` shows it.
pub(crate) const HELP: &str = "Exit codes:
  0   done
  1   a fault of this program or machine
  64  the command line is wrong
  67  not signed in
  69  the gateway cannot be reached
  74  the app behind the gateway is down
  76  the gateway's certificate is not trusted
  77  not allowed";

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A fault of this program or machine.
    Ours = 1,
    /// The command line is wrong.
    Usage = 64,
    /// No session, and none was made.
    NotSignedIn = 67,
    /// The gateway cannot be reached.
    Unreachable = 69,
    /// The app behind it cannot be reached.
    AppDown = 74,
    /// Its certificate is not believed.
    Untrusted = 76,
    /// Policy says no.
    NotAllowed = 77,
}

impl Exit {
    /// The meaning of a code that another process of ours gave.
    const fn of_code(code: u8) -> Self {
        match code {
            64 => Self::Usage,
            67 => Self::NotSignedIn,
            69 => Self::Unreachable,
            74 => Self::AppDown,
            76 => Self::Untrusted,
            77 => Self::NotAllowed,
            _ => Self::Ours,
        }
    }
}

/// What a failure costs, and what to do about it.
#[expect(clippy::too_many_lines, reason = "a table: one line a failure")]
pub(crate) fn verdict(failure: &Failure) -> (Exit, &'static str) {
    match failure {
        Failure::Link(error) => link(error),
        Failure::Login { source, .. } => login(source),
        Failure::Unwell => (Exit::Unreachable, "Each line that is marked BAD says what to do."),
        Failure::NobodyToAsk { .. } => (
            Exit::NotSignedIn,
            "Run pomerium-cli k8s exec-credential with that URL in a terminal once, or use a service account: --service-account-file",
        ),
        Failure::Refused { refusal, .. } => refused(refusal.verdict),
        Failure::BadAnswer { .. } => (
            Exit::Unreachable,
            "Check that the address is that of a gateway, and of a version that fits this client.",
        ),
        Failure::Listen { .. } | Failure::ListenProxy { .. } => {
            (Exit::Usage, "Choose another address with --listen, or stop what uses this one.")
        }
        Failure::OpenProxy { .. } => (Exit::Usage, "Choose 127.0.0.1:PORT with --listen."),
        #[cfg(target_os = "linux")]
        Failure::Tun(error) => (Exit::Ours, error.remedy()),
        Failure::NoGateway => (Exit::Usage, "Name it: pomerium-cli login https://gateway.example"),
        Failure::NoSuchRoute { .. } | Failure::NoSuchPage { .. } => {
            (Exit::Usage, "Choose a name from `pomerium-cli routes`.")
        }
        Failure::NoRoutes { .. } => (
            Exit::NotAllowed,
            "Ask your administrator for a route, or sign in as someone else: pomerium-cli logout",
        ),
        Failure::Target(_) => {
            (Exit::Usage, "Write host:port, tcp+https://host:port or tcp+https://gateway[:port]/host:port.")
        }
        Failure::Gateway(_) => (Exit::Usage, "Write the gateway as https://host or https://host:port."),
        Failure::Trust(_) => {
            (Exit::Usage, "Give a PEM file to --alternate-ca-path, or base64 of one to --ca-cert.")
        }
        Failure::ServiceAccount(_) | Failure::ServiceAccountFile(_) => (
            Exit::Usage,
            "Give the token itself to --service-account, or a file with it to --service-account-file.",
        ),
        Failure::TwoServiceAccounts => (Exit::Usage, "Set one of them."),
        Failure::Cache(_) | Failure::NoCache => {
            (Exit::Ours, "Make the folder writable for you, or set XDG_CACHE_HOME to one that is.")
        }
        Failure::Stream(reason) => stream(*reason),
        Failure::Socket(error) => socket(error),
        Failure::Daemon(_) => (
            Exit::Ours,
            "Start it again: systemctl --user restart pomerium-cli. Or go without it: --no-daemon",
        ),
        Failure::Forwards { .. } => {
            (Exit::Usage, "Mend that line, or write the file anew with: pomerium-cli connect --save")
        }
        Failure::PeerName(_) => {
            (Exit::Usage, "Choose a name that looks like itself: letters, digits, spaces.")
        }
        Failure::PeerFile { .. } => (
            Exit::Usage,
            "Choose another file with --output; one that is there is not replaced. No device was added.",
        ),
        Failure::NoSuchPeer { .. } => (Exit::Usage, "Choose one from `pomerium-cli wg list`."),
        Failure::SeveralPeers { .. } => {
            (Exit::Usage, "Give the beginning of its id, which `pomerium-cli wg list` shows.")
        }
        #[cfg(all(target_os = "linux", feature = "tray"))]
        Failure::Tray { .. } => {
            (Exit::Ours, "Run it in your desktop session; `pomerium-cli status` shows the same anywhere.")
        }
        Failure::Report { .. } => {
            (Exit::Ours, "Choose another place with --output; a file that is there is never replaced.")
        }
        Failure::NoSettings => (Exit::Ours, "Set HOME."),
        Failure::Told { exit, .. } => (Exit::of_code(*exit), ""),
        Failure::NoTunDaemon => (
            Exit::Usage,
            "Start it with one: systemctl enable --now pomerium-cli-tun@$(id -u), or pomerium-cli daemon --tun as root.",
        ),
        Failure::TooManyGateways { .. } => (
            Exit::Usage,
            "Restart the daemon to forget those that are not in use, or go without it: --no-daemon",
        ),
        Failure::Local(_) => (Exit::Ours, "Run it again with LOG_LEVEL=debug for details."),
    }
}

const fn socket(error: &SocketError) -> (Exit, &'static str) {
    match error {
        SocketError::Taken(_) => {
            (Exit::Usage, "Use that one: every command finds it. To begin anew, stop it first.")
        }
        SocketError::NoFolder | SocketError::Folder(_) | SocketError::Listen { .. } => {
            (Exit::Ours, "Set XDG_RUNTIME_DIR to a folder that only you can enter.")
        }
    }
}

fn link(error: &LinkError) -> (Exit, &'static str) {
    match error {
        LinkError::Portal { .. } => (
            Exit::Unreachable,
            "That page is the network's, not the gateway's: it needs no password of yours there. It goes on by itself once the network \
             lets you through. If no such page opens, someone may be in between: do not go on.",
        ),
        LinkError::Untrusted { .. } => (
            Exit::Untrusted,
            "If it is your own CA's, name the CA: --alternate-ca-path ca.pem. If not, someone may be in between: do not go on.",
        ),
        LinkError::BadName { .. } => (Exit::Usage, "Write the gateway as https://host or https://host:port."),
        LinkError::Settings(_) => (Exit::Ours, "Please report this."),
        LinkError::Resolve { .. } => (Exit::Unreachable, "Check the name of the gateway and your DNS."),
        LinkError::Tcp { .. }
        | LinkError::Quic { .. }
        | LinkError::Socket { .. }
        | LinkError::NoAnswer { .. }
        | LinkError::Lost { .. }
        | LinkError::LostHttp1 { .. }
        | LinkError::TooLong { .. } => {
            (Exit::Unreachable, "Check your network, the address and the port; the gateway may be down.")
        }
    }
}

fn login(error: &LoginError) -> (Exit, &'static str) {
    const AGAIN: &str = "Run: pomerium-cli login";
    match error {
        // Signing in failed for a reason of its own: that one is told.
        LoginError::Ask(failure) => match verdict(failure) {
            (Exit::Usage | Exit::Ours, _) => (Exit::NotSignedIn, AGAIN),
            other => other,
        },
        LoginError::NotInteractive => {
            (Exit::NotSignedIn, "Get a new service account token from your administrator.")
        }
        LoginError::StillRefused => (
            Exit::NotSignedIn,
            "Check this machine's and the gateway's clocks, then run: pomerium-cli logout, pomerium-cli login",
        ),
        LoginError::NoDeviceSignIn => {
            (Exit::NotSignedIn, "Sign in without --device, or ask your administrator for a newer gateway.")
        }
        LoginError::CodeRefused
        | LoginError::CodeExpired
        | LoginError::SaidNo
        | LoginError::DeviceSignInBusy => (Exit::NotSignedIn, AGAIN),
        LoginError::BadAddress | LoginError::Callback(_) | LoginError::TimedOut | LoginError::Failed(_) => {
            (Exit::NotSignedIn, AGAIN)
        }
    }
}

fn refused(verdict: Verdict) -> (Exit, &'static str) {
    match verdict {
        Verdict::Denied => (
            Exit::NotAllowed,
            "Ask your administrator for access and give the request id; your session stays valid.",
        ),
        Verdict::NoRoute => {
            (Exit::NotAllowed, "Check the destination; `pomerium-cli routes` lists what you may reach.")
        }
        Verdict::Conflict => (Exit::NotAllowed, "Do what the gateway says, and run it again."),
        Verdict::AppDown => {
            (Exit::AppDown, "The gateway is fine: tell whoever runs the app, and try again later.")
        }
        Verdict::SignIn { .. } => (Exit::NotSignedIn, "Run: pomerium-cli login"),
        Verdict::GatewayDown => {
            (Exit::Unreachable, "Try again in a moment; if it stays, tell your administrator.")
        }
        Verdict::Open | Verdict::BadRequest | Verdict::Unexpected => (
            Exit::Unreachable,
            "Check that the address is that of a gateway, and of a version that fits this client.",
        ),
    }
}

/// What the end of a stream costs that was open, and what to do about it.
const fn stream(reason: EndReason) -> (Exit, &'static str) {
    match reason {
        EndReason::Policy => (
            Exit::NotAllowed,
            "You are not allowed any more. Ask your administrator; the gateway's log has the reasons.",
        ),
        EndReason::Session => (Exit::NotSignedIn, "The session has ended. Sign in again: pomerium-cli login"),
        EndReason::ResumeFailed => (
            Exit::Unreachable,
            "The connection was lost, and by another one the stream could not go on: it came too late, or the gateway was \
             restarted. Run the command again; look at what was under way.",
        ),
        EndReason::Client | EndReason::App | EndReason::Idle | EndReason::Network | EndReason::Shutdown => {
            (Exit::Unreachable, "Run the command again; the gateway's log has the details.")
        }
    }
}

/// An error and its causes in one line, safe for a terminal.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What happened, why, and what to do.
pub(crate) fn message(failure: &Failure) -> String {
    // The daemon's words end with its advice.
    if let Failure::Told { message, .. } = failure {
        let safe = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
        return message.lines().map(safe).collect::<Vec<_>>().join("\n");
    }
    let (_, advice) = verdict(failure);
    format!("pomerium-cli: {}\n  {advice}", chain(failure))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{gateway::Gateway, link::answer::Refusal};

    fn gateway() -> Gateway {
        "gate.example".parse().unwrap()
    }

    fn refusal(verdict: Verdict) -> Failure {
        let refusal = Refusal {
            verdict,
            status: http::StatusCode::FORBIDDEN,
            detail: "rule allow.email".to_owned(),
            request_id: "0f1e".to_owned(),
            reasons: vec!["email-unauthorized".to_owned()],
            demand: String::new(),
        };
        Failure::Refused { what: "cannot connect to db:5432".to_owned(), refusal: Box::new(refusal) }
    }

    #[test]
    fn the_five_ways_to_fail_have_five_codes() {
        let unreachable = Failure::Link(LinkError::NoAnswer { gateway: gateway() });
        let untrusted = Failure::Link(LinkError::Untrusted {
            gateway: gateway(),
            source: Arc::new(std::io::Error::other("x")),
        });
        let signed_out = Failure::Login { gateway: gateway(), source: Arc::new(LoginError::TimedOut) };
        for (failure, exit) in [
            (unreachable, Exit::Unreachable),
            (untrusted, Exit::Untrusted),
            (signed_out, Exit::NotSignedIn),
            (refusal(Verdict::Denied), Exit::NotAllowed),
            (refusal(Verdict::AppDown), Exit::AppDown),
        ] {
            assert_eq!(verdict(&failure).0, exit, "{failure}");
            assert!(HELP.contains(&format!("\n  {}  ", exit as u8)), "{exit:?} is in the help");
        }
    }

    #[test]
    fn a_denial_tells_rule_reasons_and_request_id() {
        let text = message(&refusal(Verdict::Denied));
        for part in ["db:5432", "not allowed", "allow.email", "email-unauthorized", "0f1e", "administrator"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_names_the_option() {
        let error = LinkError::Untrusted {
            gateway: gateway(),
            source: Arc::new(std::io::Error::other("UnknownIssuer")),
        };
        let text = message(&Failure::Link(error));
        assert!(text.contains("--alternate-ca-path") && text.contains("UnknownIssuer"), "{text}");
    }

    #[test]
    fn a_captive_portal_is_told_with_its_page_and_with_what_was_in_the_way() {
        let source = LinkError::Untrusted {
            gateway: gateway(),
            source: Arc::new(std::io::Error::other("UnknownIssuer")),
        };
        let page = "http://wifi.example/".to_owned();
        let failure = Failure::Link(LinkError::Portal { page, source: Arc::new(source) });
        assert_eq!(verdict(&failure).0, Exit::Unreachable);
        let text = message(&failure);
        for part in
            ["sign in first: open http://wifi.example/ in the browser", "UnknownIssuer", "the network's"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_stream_that_was_cut_tells_why_and_what_to_do() {
        for (reason, exit, part) in [
            (EndReason::Policy, Exit::NotAllowed, "not allowed any more"),
            (EndReason::Session, Exit::NotSignedIn, "pomerium-cli login"),
            (EndReason::ResumeFailed, Exit::Unreachable, "by another one the stream could not go on"),
            (EndReason::Network, Exit::Unreachable, "Run the command again"),
        ] {
            let failure = Failure::Stream(reason);
            assert_eq!(verdict(&failure).0, exit, "{failure}");
            assert!(message(&failure).contains(part), "{}", message(&failure));
        }
    }

    #[test]
    fn a_sign_in_that_failed_for_the_network_is_told_as_the_network() {
        let ask = Failure::Link(LinkError::NoAnswer { gateway: gateway() });
        let failure = Failure::Login { gateway: gateway(), source: Arc::new(LoginError::Ask(Box::new(ask))) };
        assert_eq!(verdict(&failure).0, Exit::Unreachable);
    }
}
