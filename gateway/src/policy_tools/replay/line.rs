//! One line of a gateway's log, as far as a replay wants it.

use serde_json::{Map, Value as Json};

use crate::authorize::{Decision, Evaluation, Inputs, Reason, Reasons};

/// What a line says.
#[derive(Debug)]
pub(super) enum Line {
    /// A decision.
    Check(Box<Check>),
    /// The stream of this request is open.
    StreamOpened(String),
    /// The stream of this request has ended.
    StreamEnded(String),
    /// The gateway that wrote the log has ended or begun: no stream is open.
    GatewayStopped,
    /// A decision without its inputs: of an older gateway, or cut off.
    WithoutInputs,
    /// No JSON object.
    Unreadable,
    /// Something else, or an empty line.
    Nothing,
}

/// A decision with what it was made from.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) request_id: String,
    pub(super) route_id: String,
    pub(super) route_name: String,
    /// What was decided.
    pub(super) decision: Decision,
    pub(super) inputs: Inputs,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Ok(Json::Object(mut fields)) = serde_json::from_slice(line) else { return Self::Unreadable };
        // Some collectors keep an event's fields in a mapping of their own.
        if let Some(Json::Object(inner)) = fields.remove("fields") {
            fields.extend(inner);
        }
        match text(&fields, "message") {
            "authorize check" => {
                Check::of(&fields).map_or(Self::WithoutInputs, |check| Self::Check(Box::new(check)))
            }
            "stream opened" => Self::StreamOpened(text(&fields, "request-id").to_owned()),
            "stream ended" => Self::StreamEnded(text(&fields, "request-id").to_owned()),
            "gateway is up" | "gateway has stopped" => Self::GatewayStopped,
            _ => Self::Nothing,
        }
    }
}

impl Check {
    fn of(fields: &Map<String, Json>) -> Option<Self> {
        let inputs = match fields.get("inputs")? {
            Json::String(text) => Inputs::from_json(text).ok()?,
            Json::Object(_) => Inputs::from_json(&fields.get("inputs")?.to_string()).ok()?,
            _ => return None,
        };
        let evaluation = |action: &str| {
            let value = fields.get(action)?.as_bool()?;
            let codes = if value { "why-true" } else { "why-false" };
            Some(Evaluation { value, reasons: reasons(text(fields, &format!("{action}-{codes}"))) })
        };
        Some(Self {
            request_id: text(fields, "request-id").to_owned(),
            route_id: text(fields, "route-id").to_owned(),
            route_name: text(fields, "route-name").to_owned(),
            decision: Decision { allow: evaluation("allow")?, deny: evaluation("deny")? },
            inputs,
        })
    }
}

fn text<'a>(fields: &'a Map<String, Json>, name: &str) -> &'a str {
    fields.get(name).and_then(Json::as_str).unwrap_or_default()
}

/// Codes with commas between; those that this gateway does not know are left out.
fn reasons(codes: &str) -> Reasons {
    let known = |code: &str| Reason::ALL.iter().copied().find(|reason| reason.as_str() == code);
    codes.split(',').filter_map(known).collect()
}
