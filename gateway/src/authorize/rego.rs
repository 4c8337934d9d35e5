//! Rego beside PPL: the escape hatch for what PPL cannot say.
//!
//! A module is compiled once, when the configuration loads. Each decision evaluates a copy that shares the compiled
//! rules, for at most [`TIME_MAX`]. The builtins are those of the language alone: none reads a file, a clock or a
//! network. Whatever goes wrong in an evaluation denies.

#[cfg(test)]
mod tests;

use std::{num::NonZeroU32, time::Duration};

use regorus::{Engine, Value, utils::limits::ExecutionTimerConfig};
use serde_json::json;

use super::{
    CheckRequest, Decision, Evaluation,
    reason::{Reason, Reasons},
};

/// How long one evaluation may take; afterwards the answer is no.
const TIME_MAX: Duration = Duration::from_millis(50);
/// Work units of the interpreter between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).expect("64 is not zero");
/// Length of a module in bytes.
const MODULE_LEN_MAX: usize = 64 * 1024;
/// Reasons of one rule that a trace shows, and the length of each in characters.
const REASONS_MAX: usize = 10;
const REASON_LEN_MAX: usize = 200;
/// The name of a module in its messages.
const SOURCE: &str = "rego";
/// Fields that the reference has in `input.http` and this gateway does not fill in. A rule that asks for one would
/// be undefined, and a `deny` that is undefined lets in: such a module is refused.
const MISSING_INPUT: &[&str] =
    &["body", "headers", "intermediates", "mcp", "raw_path", "raw_query", "ssh", "url"];
/// Builtins that would reach out of the decision. The library is built without them; the names are refused so that
/// another build of it cannot bring them back.
const FORBIDDEN_BUILTINS: &[&str] = &["get_databroker_record", "http.send", "opa.runtime"];

/// One module, compiled.
#[derive(Debug, Clone)]
pub(super) struct Rego {
    engine: Engine,
    allow: Option<String>,
    deny: Option<String>,
}

/// Why a module was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegoError {
    /// Syntax, an unknown builtin, recursion.
    #[error("the Rego module is broken: {0}")]
    Broken(String),
    /// Neither `allow` nor `deny` is a rule of it.
    #[error("the Rego module has neither an `allow` nor a `deny` rule: it would decide nothing")]
    NoRule,
    /// It asks for what the gateway does not give.
    #[error("the Rego module uses `{0}`, which this gateway does not give to Rego: remove it")]
    Unsupported(&'static str),
    /// Over the limit.
    #[error("the Rego module is longer than {MODULE_LEN_MAX} bytes: split it into several")]
    TooLong,
}

/// What one rule came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    value: bool,
    reasons: Vec<String>,
}

/// The rule has a value that is no answer, or none could be found.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct EvaluationError(String);

impl Rego {
    /// Compiles a module, and evaluates it once: recursion and unknown functions show only then.
    pub(super) fn compile(text: &str) -> Result<Self, RegoError> {
        if text.len() > MODULE_LEN_MAX {
            return Err(RegoError::TooLong);
        }
        if let Some(name) = unsupported(text) {
            return Err(RegoError::Unsupported(name));
        }
        let broken = |error: anyhow::Error| RegoError::Broken(one_line(&error.to_string()));
        let mut engine = Engine::new();
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: TIME_MAX,
            check_interval: CHECK_INTERVAL,
        });
        let package = engine.add_policy(SOURCE.to_owned(), text.to_owned()).map_err(broken)?;
        let rule = |name: &str| {
            let declared = engine.has_declared_rule_rooted_at(SOURCE, name).map_err(broken)?;
            Ok(declared.then(|| format!("{package}.{name}")))
        };
        let (allow, deny) = (rule("allow")?, rule("deny")?);
        if allow.is_none() && deny.is_none() {
            return Err(RegoError::NoRule);
        }
        // The first evaluation also prepares the rules, which every copy then shares.
        engine.set_strict_builtin_errors(false);
        engine.set_input(sample_input());
        for rule in allow.iter().chain(&deny) {
            engine.eval_rule(rule.clone()).map_err(broken)?;
        }
        engine.set_strict_builtin_errors(true);
        engine.set_input(Value::Undefined);
        Ok(Self { engine, allow, deny })
    }

    /// Decides; an error is a `deny`. Whoever shows no certificate has a valid one, unless `needs_certificate`.
    pub(super) fn evaluate(&self, check: &CheckRequest<'_>, needs_certificate: bool) -> Decision {
        match self.answers(check, needs_certificate) {
            Ok((allow, deny)) => Decision {
                allow: allow
                    .map_or(NOTHING, |answer| answer.evaluation(Reasons::only(Reason::RegoUnauthorized))),
                deny: deny.map_or(NOTHING, |answer| answer.evaluation(Reasons::NONE)),
            },
            Err(error) => {
                tracing::warn!(%error, "a Rego module failed, which denies: correct the module");
                Decision {
                    deny: Evaluation { value: true, reasons: Reasons::only(Reason::RegoError) },
                    allow: NOTHING,
                }
            }
        }
    }

    /// What each rule came to, with its own words, for people.
    pub(super) fn trace(&self, check: &CheckRequest<'_>, needs_certificate: bool) -> Vec<String> {
        let line =
            |name: &str, answer: Answer| format!("{name}: {} ({})", answer.value, answer.reasons.join(", "));
        match self.answers(check, needs_certificate) {
            Ok((allow, deny)) => {
                let allow = allow.map(|answer| line("allow", answer));
                allow.into_iter().chain(deny.map(|answer| line("deny", answer))).collect()
            }
            Err(_) => vec![format!("failed ({})", Reason::RegoError)],
        }
    }

    fn answers(
        &self,
        check: &CheckRequest<'_>,
        needs_certificate: bool,
    ) -> Result<(Option<Answer>, Option<Answer>), EvaluationError> {
        let mut engine = self.engine.clone();
        engine.set_input(input(check, needs_certificate));
        let mut answer = |rule: &Option<String>| {
            let Some(rule) = rule else { return Ok(None) };
            let value = engine
                .eval_rule(rule.clone())
                .map_err(|error| EvaluationError(one_line(&error.to_string())))?;
            Answer::of(&value).map(Some)
        };
        Ok((answer(&self.allow)?, answer(&self.deny)?))
    }
}

const NOTHING: Evaluation = Evaluation { value: false, reasons: Reasons::NONE };

impl Answer {
    /// Reads a bool, `[bool]`, `[bool, reasons]` or `[bool, reasons, data]`; undefined is no.
    fn of(value: &Value) -> Result<Self, EvaluationError> {
        let malformed = || {
            let expected = "expected a bool, [bool], [bool, reasons] or [bool, reasons, data]";
            EvaluationError(format!("a rule has a value of the wrong form: {expected}"))
        };
        match value {
            Value::Undefined => Ok(Self::default()),
            Value::Bool(value) => Ok(Self { value: *value, reasons: Vec::new() }),
            Value::Array(parts) if (1..=3).contains(&parts.len()) => {
                let Value::Bool(value) = parts[0] else { return Err(malformed()) };
                let reasons = match parts.get(1) {
                    None => Vec::new(),
                    Some(Value::Array(texts)) => {
                        texts.iter().map(reason).collect::<Option<_>>().ok_or_else(malformed)?
                    }
                    Some(Value::Set(texts)) => texts
                        .iter()
                        .take(REASONS_MAX)
                        .map(reason)
                        .collect::<Option<_>>()
                        .ok_or_else(malformed)?,
                    Some(_) => return Err(malformed()),
                };
                Ok(Self { value, reasons: reasons.into_iter().take(REASONS_MAX).collect() })
            }
            _ => Err(malformed()),
        }
    }

    /// A reason in the words of PPL counts as that reason; `user-unauthenticated` asks for the sign-in.
    fn evaluation(&self, when_false: Reasons) -> Evaluation {
        let known = |text: &String| Reason::ALL.iter().copied().find(|reason| reason.as_str() == text);
        let reasons: Reasons = self.reasons.iter().filter_map(known).collect();
        let of_rego = if self.value { Reasons::only(Reason::RegoOk) } else { when_false };
        Evaluation { value: self.value, reasons: if reasons.is_empty() { of_rego } else { reasons } }
    }
}

fn reason(value: &Value) -> Option<String> {
    let Value::String(text) = value else { return None };
    Some(text.chars().filter(|c| !c.is_control()).take(REASON_LEN_MAX).collect())
}

/// The facts of a request under their documented names. There are no headers in it, hence no credentials.
fn input(check: &CheckRequest<'_>, needs_certificate: bool) -> Value {
    let request = &check.request;
    let session = check.live_session();
    let certificate = request.certificate;
    let is_valid = certificate.map_or(!needs_certificate, |certificate| certificate.is_valid);
    Value::from(json!({
        "http": {
            "method": request.method,
            "host": request.host,
            "hostname": request.host,
            "path": request.path,
            "ip": request.source_ip.to_string(),
            "client_certificate": { "presented": certificate.is_some() },
        },
        "session": {
            "id": session.map_or("", |session| session.id.as_str()),
            "user_id": session.map_or("", |session| session.user_id.as_str()),
        },
        "is_valid_client_certificate": is_valid,
    }))
}

fn sample_input() -> Value {
    Value::from(json!({
        "http": {
            "method": "GET",
            "host": "app.example",
            "hostname": "app.example",
            "path": "/",
            "ip": "192.0.2.1",
            "client_certificate": { "presented": false },
        },
        "session": { "id": "", "user_id": "" },
        "is_valid_client_certificate": true,
    }))
}

/// The first name in the text, as a whole word, that this gateway does not have.
fn unsupported(text: &str) -> Option<&'static str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let stands = |name: &str| {
        text.match_indices(name)
            .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word))
    };
    FORBIDDEN_BUILTINS.iter().chain(MISSING_INPUT).copied().find(|name| stands(name))
}

/// The library draws the source over several lines; a message of ours is one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect()
}
