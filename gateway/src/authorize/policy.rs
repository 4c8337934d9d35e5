//! A route's policy, compiled: two lists of groups, evaluated without allocation.

mod remedy;
mod sharing;

use std::time::SystemTime;

pub use remedy::Remedy;
use sharing::{Answers, Slot, share};

use super::{
    CheckRequest, Decision, Evaluation,
    criterion::{ClaimPath, Criterion},
    matcher::{ListMatcher, ListTest, Scalar, StringMatcher, StringTest, TextSet},
    ppl::{self, Action, Ast, Group, Operator, PolicyError},
    reason::Reasons,
    rego::{Rego, RegoError},
};
use crate::yaml::Node;

/// A policy, parsed and compiled; evaluating it cannot fail. The default has no rule and allows nobody.
#[derive(Debug, Default)]
pub struct Policy {
    allow: Vec<LabelledGroup>,
    deny: Vec<LabelledGroup>,
    rego: Vec<Rego>,
    /// Whether clients need a certificate from an authority: one that shows none has no valid one.
    has_client_authority: bool,
}

/// A group and where it stands, as traces name it.
#[derive(Debug)]
pub(super) struct LabelledGroup {
    pub(super) label: String,
    pub(super) group: Group,
    /// One for each criterion.
    slots: Vec<Slot>,
}

impl LabelledGroup {
    const fn new(label: String, group: Group) -> Self {
        Self { label, group, slots: Vec::new() }
    }

    fn evaluate(&self, check: &CheckRequest<'_>, answers: &mut Answers) -> Evaluation {
        let asked = self.group.criteria.iter().zip(&self.slots);
        self.group.operator.join(asked.map(|(criterion, slot)| answers.of(criterion, *slot, check).into()))
    }
}

/// The short forms of a route's access rules; together they are one `allow` rule with `or`.
#[derive(Debug, Default)]
pub struct ShortForms {
    /// `allow_public_unauthenticated_access`: `accept`.
    pub allow_public_unauthenticated_access: bool,
    /// `cors_allow_preflight`: `cors_preflight`.
    pub cors_allow_preflight: bool,
    /// `allow_any_authenticated_user`: `authenticated_user`.
    pub allow_any_authenticated_user: bool,
    /// `allowed_domains`: `domain`.
    pub allowed_domains: Vec<String>,
    /// `allowed_idp_claims`: claim to values, any of which suffices.
    pub allowed_idp_claims: Vec<(String, Vec<String>)>,
    /// `allowed_users`: each a user id or an email.
    pub allowed_users: Vec<String>,
}

impl ShortForms {
    /// All criteria, those of `allow` first.
    pub fn criteria(&self) -> Vec<Criterion> {
        let one_of = |texts: &[String]| StringMatcher::one(StringTest::In(TextSet::new(texts.to_vec())));
        let mut criteria = Vec::new();
        if self.allow_public_unauthenticated_access {
            criteria.push(Criterion::Accept);
        }
        if self.cors_allow_preflight {
            criteria.push(Criterion::CorsPreflight);
        }
        if self.allow_any_authenticated_user {
            criteria.push(Criterion::AuthenticatedUser);
        }
        if !self.allowed_domains.is_empty() {
            criteria.push(Criterion::Domain(one_of(&self.allowed_domains)));
        }
        for (claim, values) in &self.allowed_idp_claims {
            criteria.extend(values.iter().map(|value| {
                let has = ListMatcher::one(ListTest::Has(Scalar::Text(value.clone())));
                Criterion::Claim(ClaimPath::new(claim), has)
            }));
        }
        if !self.allowed_users.is_empty() {
            criteria.push(Criterion::User(one_of(&self.allowed_users)));
            criteria.push(Criterion::Email(one_of(&self.allowed_users)));
        }
        criteria
    }
}

impl Policy {
    /// Builds the policy of one route from its rules and their short forms; without either it allows nobody.
    ///
    /// # Errors
    /// Everything that is wrong with the rules, with places.
    pub fn build(ppl: Option<&Node>, short: &ShortForms) -> Result<Self, Vec<PolicyError>> {
        let mut policy = ppl.map(ppl::parse).transpose()?.map_or_else(Self::default, Self::compile);
        let criteria = short.criteria();
        if !criteria.is_empty() {
            let group = Group { operator: Operator::Or, criteria };
            policy.allow.push(LabelledGroup::new("short_forms.or".to_owned(), group));
        }
        share(policy.allow.iter_mut().chain(&mut policy.deny));
        Ok(policy)
    }

    /// Several rules, blocks and operators with the same action are joined by OR, so they all become one list.
    fn compile(ast: Ast) -> Self {
        let mut policy = Self::default();
        let has_one_rule = ast.rules.len() == 1;
        for (index, rule) in ast.rules.into_iter().enumerate() {
            let rule_label = if has_one_rule { String::new() } else { format!("rule[{index}].") };
            for block in rule.blocks {
                let action = block.action.as_str();
                let groups = match block.action {
                    Action::Allow => &mut policy.allow,
                    Action::Deny => &mut policy.deny,
                };
                groups.extend(block.groups.into_iter().map(|group| {
                    LabelledGroup::new(format!("{rule_label}{action}.{}", group.operator.as_str()), group)
                }));
            }
        }
        policy
    }

    /// Decides. Without a matching `allow` rule the answer is no.
    #[must_use]
    pub fn evaluate(&self, check: &CheckRequest<'_>) -> Decision {
        let mut answers = Answers::NONE;
        let mut any = |groups: &[LabelledGroup]| {
            join_any(groups.iter().map(|labelled| labelled.evaluate(check, &mut answers)))
        };
        self.with_rego(Decision { allow: any(&self.allow), deny: any(&self.deny) }, check)
    }

    /// What PPL came to, and after it each Rego module.
    pub(super) fn with_rego(&self, of_ppl: Decision, check: &CheckRequest<'_>) -> Decision {
        self.rego.iter().fold(of_ppl, |decision, rego| {
            let Decision { allow, deny } = rego.evaluate(check, self.has_client_authority);
            Decision {
                allow: join_any([decision.allow, allow].into_iter()),
                deny: join_any([decision.deny, deny].into_iter()),
            }
        })
    }

    /// The modules in Rego.
    pub(super) fn rego(&self) -> &[Rego] {
        &self.rego
    }

    /// An authority stands for the certificates of the route's clients. With `denies`, who shows none from it is refused,
    /// whatever else the rules say.
    pub fn hold_to_client_authority(&mut self, denies: bool) {
        self.has_client_authority = true;
        if denies {
            let group = Group { operator: Operator::Or, criteria: vec![Criterion::InvalidClientCertificate] };
            self.deny.insert(0, LabelledGroup::new("downstream_mtls.or".to_owned(), group));
            share(self.allow.iter_mut().chain(&mut self.deny));
        }
    }

    /// Whether clients need a certificate from an authority.
    #[must_use]
    pub const fn has_client_authority(&self) -> bool {
        self.has_client_authority
    }

    /// Adds a Rego module, which has its say after the rules in PPL: `deny` of either beats `allow` of both.
    ///
    /// # Errors
    /// What is wrong with the module.
    pub fn add_rego(&mut self, text: &str) -> Result<(), RegoError> {
        self.rego.push(Rego::compile(text)?);
        Ok(())
    }

    /// The next moment after `check.now` at which the answer may change by the clock alone: a date, a day, a time, an age,
    /// or the session's end. It may be one at which it does not. `None`: the clock will never change it.
    #[must_use]
    pub fn next_edge(&self, check: &CheckRequest<'_>) -> Option<SystemTime> {
        let session_end = check.live_session().map(|session| session.expires_at);
        self.criteria().filter_map(|criterion| criterion.next_edge(check)).chain(session_end).min()
    }

    /// All criteria, those of `allow` first.
    pub fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        self.groups().flat_map(|(_, labelled)| &labelled.group.criteria)
    }

    /// Whether a request could be judged otherwise for its path alone. What a module in Rego makes of one, nobody knows.
    pub(crate) fn tells_apart(&self, one: &str, other: &str) -> bool {
        !self.rego.is_empty() || self.criteria().any(|criterion| criterion.tells_apart(one, other))
    }

    /// The groups of both actions, `allow` first, as they are written.
    pub(super) fn groups(&self) -> impl Iterator<Item = (Action, &LabelledGroup)> {
        let allow = self.allow.iter().map(|group| (Action::Allow, group));
        allow.chain(self.deny.iter().map(|group| (Action::Deny, group)))
    }
}

impl Operator {
    /// What a group comes to whose criteria came to `parts`.
    pub(super) fn join(self, parts: impl Iterator<Item = Evaluation>) -> Evaluation {
        let inverted = |part: Evaluation| Evaluation { value: !part.value, ..part };
        match self {
            Self::And => join_all(parts),
            Self::Or => join_any(parts),
            Self::Not => join_all(parts.map(inverted)),
            Self::Nor => join_any(parts.map(inverted)),
        }
    }
}

/// True with the reasons of the true parts, or false with those of all.
pub(super) fn join_any(parts: impl Iterator<Item = Evaluation>) -> Evaluation {
    let (mut of_true, mut of_false, mut is_true) = (Reasons::NONE, Reasons::NONE, false);
    for part in parts {
        is_true |= part.value;
        let reasons = if part.value { &mut of_true } else { &mut of_false };
        *reasons = reasons.union(part.reasons);
    }
    Evaluation { value: is_true, reasons: if is_true { of_true } else { of_false } }
}

/// True with the reasons of all, or false with those of the false parts. No part at all is false: nothing is
/// allowed that no rule allows.
fn join_all(parts: impl Iterator<Item = Evaluation>) -> Evaluation {
    let (mut of_true, mut of_false, mut has_parts, mut is_true) = (Reasons::NONE, Reasons::NONE, false, true);
    for part in parts {
        has_parts = true;
        is_true &= part.value;
        let reasons = if part.value { &mut of_true } else { &mut of_false };
        *reasons = reasons.union(part.reasons);
    }
    let value = has_parts && is_true;
    Evaluation { value, reasons: if value { of_true } else { of_false } }
}

#[cfg(test)]
impl Policy {
    /// The policy of a text, for tests.
    pub(crate) fn from_yaml(text: &str) -> Self {
        Self::build(Some(&crate::yaml::parse(text).unwrap()), &ShortForms::default()).unwrap()
    }
}
