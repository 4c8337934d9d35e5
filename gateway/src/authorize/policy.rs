//! A route's policy, compiled: two lists of groups, evaluated without allocation.

use super::{
    CheckRequest, Decision, Evaluation,
    criterion::{ClaimPath, Criterion},
    matcher::{ListMatcher, ListTest, Scalar, StringMatcher, StringTest, TextSet},
    ppl::{self, Action, Ast, Group, Operator, PolicyError},
    reason::Reasons,
    rego::{Rego, RegoError},
};
use crate::yaml::Node;

/// Lines of one trace at most; a page and a log line should stay readable.
const TRACE_LINES_MAX: usize = 100;

/// A policy, parsed and compiled; evaluating it cannot fail. The default has no rule and allows nobody.
#[derive(Debug, Default)]
pub struct Policy {
    allow: Vec<LabelledGroup>,
    deny: Vec<LabelledGroup>,
    rego: Vec<Rego>,
}

/// A group and where it stands, as traces name it.
#[derive(Debug)]
struct LabelledGroup {
    label: String,
    group: Group,
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
    fn criteria(&self) -> Vec<Criterion> {
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
            policy.allow.push(LabelledGroup { label: "short_forms.or".to_owned(), group });
        }
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
                groups.extend(block.groups.into_iter().map(|group| LabelledGroup {
                    label: format!("{rule_label}{action}.{}", group.operator.as_str()),
                    group,
                }));
            }
        }
        policy
    }

    /// Decides. Without a matching `allow` rule the answer is no.
    #[must_use]
    pub fn evaluate(&self, check: &CheckRequest<'_>) -> Decision {
        let any =
            |groups: &[LabelledGroup]| join_any(groups.iter().map(|labelled| labelled.group.evaluate(check)));
        let of_ppl = Decision { allow: any(&self.allow), deny: any(&self.deny) };
        self.rego.iter().fold(of_ppl, |decision, rego| {
            let Decision { allow, deny } = rego.evaluate(check);
            Decision {
                allow: join_any([decision.allow, allow].into_iter()),
                deny: join_any([decision.deny, deny].into_iter()),
            }
        })
    }

    /// Adds a Rego module, which has its say after the rules in PPL: `deny` of either beats `allow` of both.
    ///
    /// # Errors
    /// What is wrong with the module.
    pub fn add_rego(&mut self, text: &str) -> Result<(), RegoError> {
        self.rego.push(Rego::compile(text)?);
        Ok(())
    }

    /// How each criterion came out: `allow.or[0] email is "alice@example.com": false (email-unauthorized)`. For
    /// people; at most a hundred lines.
    #[must_use]
    pub fn trace(&self, check: &CheckRequest<'_>) -> Vec<String> {
        let groups = self.allow.iter().chain(&self.deny);
        let criteria = groups.clone().flat_map(|labelled| {
            let indexed = labelled.group.criteria.iter().enumerate();
            indexed.map(move |(index, criterion)| (&labelled.label, index, criterion))
        });
        let mut lines: Vec<_> = criteria
            .take(TRACE_LINES_MAX)
            .map(|(label, index, criterion)| {
                let Evaluation { value, reasons } = criterion.evaluate(check);
                format!("{label}[{index}] {criterion}: {value} ({reasons})")
            })
            .collect();
        let total: usize = groups.map(|labelled| labelled.group.criteria.len()).sum();
        if total > TRACE_LINES_MAX {
            lines.push(format!("... and {} more", total - TRACE_LINES_MAX));
        }
        for (index, rego) in self.rego.iter().enumerate() {
            lines.extend(rego.trace(check).into_iter().map(|line| format!("rego[{index}] {line}")));
        }
        lines
    }
}

impl Group {
    fn evaluate(&self, check: &CheckRequest<'_>) -> Evaluation {
        let plain = self.criteria.iter().map(|criterion| criterion.evaluate(check));
        let inverted = plain.clone().map(|part| Evaluation { value: !part.value, ..part });
        match self.operator {
            Operator::And => join_all(plain),
            Operator::Or => join_any(plain),
            Operator::Not => join_all(inverted),
            Operator::Nor => join_any(inverted),
        }
    }
}

/// True with the reasons of the true parts, or false with those of all.
fn join_any(parts: impl Iterator<Item = Evaluation>) -> Evaluation {
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
