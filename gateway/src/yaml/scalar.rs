//! Plain scalars become values by the core schema (YAML 1.2.2, 10.3.2).

use super::Value;

/// What an unquoted scalar means.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::Integer(number);
    }
    match float(text) {
        Some(number) => Value::Float(number),
        None => Value::String(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i64> {
    // `from_str_radix` takes a sign behind the prefix, which the schema does not.
    let based = |digits: &str, radix| {
        let clean = digits.bytes().all(|b| b.is_ascii_alphanumeric());
        clean.then(|| i64::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return based(digits, 8);
    }
    text.parse().ok()
}

fn float(text: &str) -> Option<f64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(sign * f64::INFINITY);
    }
    // `f64::from_str` also takes `inf`, `infinity` and `nan`, which are plain texts here.
    let numeric = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let begins = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (numeric && begins).then(|| digits.parse::<f64>().ok()).flatten().map(|number| sign * number)
}
