//! A parsed policy, and its evaluation: no allocation, no failure.

use super::{
    CheckRequest, Decision, Evaluation, Reasons,
    criterion::Criterion,
    matcher::{ListMatcher, ListTest, StringMatcher, StringTest},
    ppl::{self, PolicyError},
};
use crate::yaml::Node;

/// Who may use a route. An empty policy allows nobody.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub(super) allow: Vec<Block>,
    pub(super) deny: Vec<Block>,
}

/// One operator with its criteria. The operators of a block, and blocks of one action, are joined by "or".
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub(super) operator: Operator,
    pub(super) criteria: Vec<Criterion>,
}

/// `not` and `nor` mean the reverse of what their names suggest; configs in the field rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// All hold.
    And,
    /// Any holds.
    Or,
    /// None holds.
    Not,
    /// At least one does not hold.
    Nor,
}

impl Operator {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Nor => "nor",
        }
    }
}

/// The short forms beside `policy`; together they are one more `allow` rule, joined by "or".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShortForms {
    /// `allow_public_unauthenticated_access`.
    pub allow_public_unauthenticated_access: bool,
    /// `cors_allow_preflight`.
    pub cors_allow_preflight: bool,
    /// `allow_any_authenticated_user`.
    pub allow_any_authenticated_user: bool,
    /// `allowed_domains`.
    pub allowed_domains: Vec<String>,
    /// `allowed_idp_claims`: claim and the values of which one is enough.
    pub allowed_idp_claims: Vec<(String, Vec<String>)>,
    /// `allowed_users`: user ids or email addresses.
    pub allowed_users: Vec<String>,
}

impl Policy {
    /// Joins a route's `policy` and its short forms.
    ///
    /// # Errors
    /// Everything that is wrong with `ppl`, each with its place.
    pub fn build(ppl: Option<&Node>, short: &ShortForms) -> Result<Self, Vec<PolicyError>> {
        let mut policy = ppl.map(ppl::parse).transpose()?.unwrap_or_default();
        let criteria = short.criteria();
        if !criteria.is_empty() {
            policy.allow.push(Block { operator: Operator::Or, criteria });
        }
        Ok(policy)
    }

    /// Holds the policy against a request.
    #[must_use]
    pub fn evaluate(&self, check: &CheckRequest<'_>) -> Decision {
        Decision { allow: any(&self.allow, check), deny: any(&self.deny, check) }
    }

    /// Each rule with what it came to, for logs and for the person who asks why.
    #[must_use]
    pub fn trace(&self, check: &CheckRequest<'_>) -> Vec<String> {
        let of = |action: &str, blocks: &[Block]| {
            let mut lines = Vec::new();
            for block in blocks {
                for (index, criterion) in block.criteria.iter().enumerate() {
                    let Evaluation { value, reasons } = criterion.evaluate(check);
                    let (operator, why) = (block.operator.as_str(), reasons.to_text());
                    lines.push(format!("{action}.{operator}[{index}] {criterion}: {value} ({why})"));
                }
            }
            lines
        };
        let mut lines = of("allow", &self.allow);
        lines.extend(of("deny", &self.deny));
        lines
    }
}

fn any(blocks: &[Block], check: &CheckRequest<'_>) -> Evaluation {
    join(blocks.iter().map(|block| block.evaluate(check)), false)
}

impl Block {
    fn evaluate(&self, check: &CheckRequest<'_>) -> Evaluation {
        let parts = self.criteria.iter().map(|criterion| criterion.evaluate(check));
        // An inverted part keeps its reasons: "not signed in" still leads to signing in.
        let inverted = |part: Evaluation| Evaluation { value: !part.value, ..part };
        match self.operator {
            Operator::And => join(parts, true),
            Operator::Or => join(parts, false),
            Operator::Not => join(parts.map(inverted), true),
            Operator::Nor => join(parts.map(inverted), false),
        }
    }
}

/// True by all of the parts, or by any; the reasons are those of the parts that are as the whole is.
fn join(parts: impl Iterator<Item = Evaluation>, needs_all: bool) -> Evaluation {
    let (mut yes, mut no) = (Reasons::default(), Reasons::default());
    let (mut any_yes, mut any_no) = (false, false);
    for part in parts {
        if part.value {
            any_yes = true;
            yes = yes.union(part.reasons);
        } else {
            any_no = true;
            no = no.union(part.reasons);
        }
    }
    let value = if needs_all { any_yes && !any_no } else { any_yes };
    Evaluation { value, reasons: if value { yes } else { no } }
}

impl ShortForms {
    fn criteria(&self) -> Vec<Criterion> {
        let is = |text: &String| StringMatcher(vec![StringTest::Is(text.clone())]);
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
        criteria.extend(self.allowed_domains.iter().map(|domain| Criterion::Domain(is(domain))));
        for (path, values) in &self.allowed_idp_claims {
            criteria.extend(values.iter().map(|value| Criterion::Claim {
                path: path.clone(),
                matcher: ListMatcher(vec![ListTest::Has(value.clone())]),
            }));
        }
        for user in &self.allowed_users {
            criteria.push(Criterion::User(is(user)));
            criteria.push(Criterion::Email(is(user)));
        }
        criteria
    }
}
