//! `policy explain`: one question, the tree of rules with how each came out, and the answer.

use std::fmt::Write as _;

use super::{persona, plain, routes::Place, shown_time};
use crate::{
    authorize::{CheckRequest, ExplainedGroup, Explanation, Verdict, ppl::Action},
    config::Route,
};

/// Who asks for what, of which route.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) route: &'a Route,
    pub(crate) place: &'a Place,
    pub(crate) check: &'a CheckRequest<'a>,
    /// Where what is known of the person comes from.
    pub(crate) source: &'a str,
}

/// The whole answer as text, and whether it is yes.
pub(crate) fn explain(asked: &Asked<'_>) -> (String, bool) {
    let Asked { route, place, check, source } = asked;
    let explanation = route.policy.explain(check);
    let mut text = String::new();
    let who = check.session.map_or_else(
        || "nobody is signed in".to_owned(),
        |session| {
            let id = session.user_id.as_str();
            let id =
                if id.is_empty() { "user id not known".to_owned() } else { format!("user id {}", plain(id)) };
            format!("{} ({id}; {source})", persona::shown(session))
        },
    );
    // Writing to a `String` does not fail.
    let _ = writeln!(text, "person:   {who}");
    let (method, ip, at) = (check.request.method, check.request.source_ip, shown_time(check.now.wall));
    let _ = writeln!(text, "asks:     {method} {place} from {ip} at {at}");
    let _ = writeln!(text, "route:    {}\n", route.name);
    text.push_str(&tree(&explanation));
    let decision = &explanation.decision;
    let _ = match decision.verdict() {
        Verdict::Allow => writeln!(text, "\ndecision: allowed"),
        Verdict::SignIn => writeln!(text, "\ndecision: sign in first"),
        Verdict::Deny { .. } => writeln!(text, "\ndecision: denied"),
    };
    for sentence in decision.explain() {
        let _ = writeln!(text, "          {sentence}");
    }
    for remedy in route.policy.remedies(check) {
        let _ = writeln!(text, "to do:    {remedy}");
    }
    let status = match (decision.verdict(), place) {
        (Verdict::Allow, Place::Http { .. }) => "whatever the app answers".to_owned(),
        (Verdict::Allow, Place::Tcp(_)) => "200, once the app has accepted".to_owned(),
        (Verdict::Allow, Place::Udp(_)) => "200".to_owned(),
        (Verdict::SignIn, Place::Http { .. }) => {
            "302 to the sign-in for a browser, 401 for a program".to_owned()
        }
        (Verdict::SignIn, Place::Tcp(_) | Place::Udp(_)) => "401".to_owned(),
        (Verdict::Deny { status }, _) => status.to_string(),
    };
    let _ = writeln!(text, "status:   {status}");
    (text, decision.verdict() == Verdict::Allow)
}

/// Both actions with their groups and criteria.
pub(crate) fn tree(explanation: &Explanation<'_>) -> String {
    let mut text = String::new();
    for action in [Action::Allow, Action::Deny] {
        let groups: Vec<_> = explanation.groups.iter().filter(|group| group.action == action).collect();
        let evaluation = match action {
            Action::Allow => explanation.decision.allow,
            Action::Deny => explanation.decision.deny,
        };
        let word = action.as_str();
        let _ = match (groups.is_empty(), evaluation.value) {
            (true, _) => writeln!(text, "{word}: no rule"),
            (false, true) => writeln!(text, "{word}: yes"),
            (false, false) => writeln!(text, "{word}: no"),
        };
        for (index, group) in groups.iter().enumerate() {
            branch(&mut text, group, index + 1 == groups.len());
        }
    }
    text
}

fn branch(text: &mut String, group: &ExplainedGroup<'_>, is_last: bool) {
    let (fork, stem) = if is_last { ("└─", "  ") } else { ("├─", "│ ") };
    let came_out = if group.evaluation.value { "true" } else { "false" };
    let _ = writeln!(text, "{fork} {}: {came_out}", group.label);
    for (index, explained) in group.criteria.iter().enumerate() {
        let fork = if index + 1 == group.criteria.len() { "└─" } else { "├─" };
        let (criterion, reasons) = (explained.criterion, explained.evaluation.reasons);
        let _ = writeln!(text, "{stem} {fork} {criterion}: {} ({reasons})", explained.outcome().as_str());
    }
}
