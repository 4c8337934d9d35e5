//! Why a policy decides as it does: every group with what matched, failed or was skipped, and the decision, in one walk.

use super::{
    CheckRequest, Criterion, Decision, Evaluation, Policy, Reason,
    policy::join_any,
    ppl::{Action, Operator},
    reason::Reasons,
    rego::Rego,
};

/// Lines of one trace at most; a page and a log line should stay readable.
const TRACE_LINES_MAX: usize = 100;

/// A decision with how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation<'p> {
    /// What the policy came to; the same as [`Policy::evaluate`] says.
    pub decision: Decision,
    /// Every group, those of `allow` first, in the order of the file. Groups of one action are joined by OR.
    pub groups: Vec<ExplainedGroup<'p>>,
    /// A line a rule of each Rego module, with its own words.
    pub rego: Vec<String>,
}

/// One operator with its criteria, and what it came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedGroup<'p> {
    /// Where it stands: `rule[0].allow.or`.
    pub label: &'p str,
    /// What follows if it is true.
    pub action: Action,
    /// How the criteria are joined.
    pub operator: Operator,
    /// What it came to.
    pub evaluation: Evaluation,
    /// Its criteria, in the order of the file.
    pub criteria: Vec<ExplainedCriterion<'p>>,
}

/// One criterion and its answer, before `not` or `nor` turn it round.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedCriterion<'p> {
    /// The question; its `Display` shows the matcher.
    pub criterion: &'p Criterion,
    /// The answer.
    pub evaluation: Evaluation,
}

/// How a criterion came out, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was compared, and is true.
    Matched,
    /// It was compared, and is false.
    Failed,
    /// There was nothing to compare: nobody is signed in, for example. Counts as false.
    Skipped,
}

impl Outcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Failed => "not matched",
            Self::Skipped => "skipped",
        }
    }
}

impl ExplainedCriterion<'_> {
    /// How it came out.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let lacks_subject = self.evaluation.reasons.iter().any(is_of_nothing_to_compare);
        match self.evaluation.value {
            true => Outcome::Matched,
            false if lacks_subject => Outcome::Skipped,
            false => Outcome::Failed,
        }
    }
}

/// Whether the reason says that what a criterion asks about is not there at all.
const fn is_of_nothing_to_compare(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UserUnauthenticated
            | Reason::DeviceUnauthenticated
            | Reason::PostureUnknown
            | Reason::ClientCertificateRequired
            | Reason::McpNotAToolCall
    )
}

impl Policy {
    /// Decides, and keeps how. For people and tools: requests are decided by [`Self::evaluate`].
    #[must_use]
    pub fn explain(&self, check: &CheckRequest<'_>) -> Explanation<'_> {
        let mut explanation = self.explain_by(|_, _, criterion| criterion.evaluate(check));
        explanation.decision = self.with_rego(explanation.decision, check);
        let of_module = |(index, rego): (usize, &Rego)| {
            let lines = rego.trace(check, self.has_client_authority());
            lines.into_iter().map(move |line| format!("rego[{index}] {line}"))
        };
        explanation.rego = self.rego().iter().enumerate().flat_map(of_module).collect();
        explanation
    }

    /// The decision where only some criteria are known to have their answer; `None` when the others could turn a yes into
    /// a no, or back.
    #[must_use]
    pub fn decide_from_known(
        &self,
        check: &CheckRequest<'_>,
        is_known: impl Fn(&Criterion) -> bool,
    ) -> Option<Decision> {
        // A module may ask for anything.
        if !self.rego().is_empty() {
            return None;
        }
        if self.criteria().all(&is_known) {
            return Some(self.evaluate(check));
        }
        // What is not known is taken to help, or to hinder, wherever it stands: no other answers lead further.
        let at_an_end = |helps: bool| {
            self.explain_by(|action, operator, criterion| {
                if is_known(criterion) {
                    return criterion.evaluate(check);
                }
                let makes_true = (action == Action::Allow) == helps;
                let is_inverted = matches!(operator, Operator::Not | Operator::Nor);
                Evaluation { value: makes_true != is_inverted, reasons: Reasons::NONE }
            })
        };
        let would_pass = |decision: &Decision| decision.allow.value && !decision.deny.value;
        let best = at_an_end(true).decision;
        if !would_pass(&best) {
            return Some(best);
        }
        // Whether a missing session or device counts may depend on what is not known, one way or the other.
        let worst = at_an_end(false);
        let lacks_something = worst
            .groups
            .iter()
            .flat_map(|group| &group.criteria)
            .any(|explained| explained.evaluation.reasons.iter().any(is_of_nothing_to_compare));
        // So may what is not known itself, where it finds no session or device to ask.
        let unknown_lacks_something = self
            .criteria()
            .filter(|criterion| !is_known(criterion))
            .any(|criterion| criterion.evaluate(check).reasons.iter().any(is_of_nothing_to_compare));
        let is_certain = would_pass(&worst.decision) && !lacks_something && !unknown_lacks_something;
        is_certain.then_some(worst.decision)
    }

    fn explain_by(&self, answer: impl Fn(Action, Operator, &Criterion) -> Evaluation) -> Explanation<'_> {
        let groups: Vec<_> = self
            .groups()
            .map(|(action, labelled)| {
                let operator = labelled.group.operator;
                let explained = |criterion| ExplainedCriterion {
                    criterion,
                    evaluation: answer(action, operator, criterion),
                };
                let criteria: Vec<_> = labelled.group.criteria.iter().map(explained).collect();
                let evaluation = operator.join(criteria.iter().map(|part| part.evaluation));
                ExplainedGroup { label: &labelled.label, action, operator, evaluation, criteria }
            })
            .collect();
        let of = |action| {
            join_any(groups.iter().filter(|group| group.action == action).map(|group| group.evaluation))
        };
        Explanation {
            decision: Decision { allow: of(Action::Allow), deny: of(Action::Deny) },
            groups,
            rego: Vec::new(),
        }
    }
}

impl Explanation<'_> {
    /// A line a criterion: `allow.or[0] email is "alice@example.com": false (email-unauthorized)`. For people; at most
    /// a hundred lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let criteria = self.groups.iter().flat_map(|group| {
            let indexed = group.criteria.iter().enumerate();
            indexed.map(move |(index, explained)| (group.label, index, explained))
        });
        let total = criteria.clone().count();
        let mut lines: Vec<_> = criteria
            .take(TRACE_LINES_MAX)
            .map(|(label, index, explained)| {
                let Evaluation { value, reasons } = explained.evaluation;
                format!("{label}[{index}] {}: {value} ({reasons})", explained.criterion)
            })
            .collect();
        if total > TRACE_LINES_MAX {
            lines.push(format!("... and {} more", total - TRACE_LINES_MAX));
        }
        lines.extend(self.rego.iter().cloned());
        lines
    }
}
