use proptest::prelude::*;

use super::*;

fn value(text: &str) -> Value {
    parse(text).unwrap().value
}

fn error(text: &str) -> String {
    let error = parse(text).unwrap_err();
    match error.at() {
        Some(at) => format!("{at}: {error}"),
        None => error.to_string(),
    }
}

#[test]
fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_texts() {
    for (text, expected) in [
        ("~", Value::Null),
        ("", Value::Null),
        ("True", Value::Bool(true)),
        ("yes", Value::String("yes".into())),
        ("on", Value::String("on".into())),
        ("42", Value::Integer(42)),
        ("-7", Value::Integer(-7)),
        ("0x1F", Value::Integer(31)),
        ("0o17", Value::Integer(15)),
        ("0x-1", Value::String("0x-1".into())),
        ("1.5", Value::Float(1.5)),
        ("-.inf", Value::Float(f64::NEG_INFINITY)),
        ("inf", Value::String("inf".into())),
        ("nan", Value::String("nan".into())),
        ("1e3", Value::Float(1000.0)),
        ("30s", Value::String("30s".into())),
        (":443", Value::String(":443".into())),
        ("'42'", Value::String("42".into())),
        ("\"true\"", Value::String("true".into())),
        ("99999999999999999999", Value::Float(1e20)),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn every_node_and_key_knows_its_line_and_column() {
    let root = parse("a: 1\nb:\n  - x\n  - c: é d\n").unwrap();
    let Value::Map(entries) = &root.value else { panic!("a mapping") };
    assert_eq!(entries[0].at.to_string(), "1:1");
    assert_eq!(entries[0].value.at.to_string(), "1:4");
    let Value::List(items) = &entries[1].value.value else { panic!("a list") };
    assert_eq!(items[0].at.to_string(), "3:5");
    let Value::Map(inner) = &items[1].value else { panic!("a mapping") };
    assert_eq!((inner[0].at.to_string(), inner[0].value.at.to_string()), ("4:5".into(), "4:8".into()));
}

#[test]
fn what_would_be_read_differently_by_others_is_refused_with_its_place() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "3:1: the key \"a\" is already set in line 1"),
        ("a: &x 1\nb: *x\n", "1:4: anchors are not supported: write the value out"),
        ("b: *x\n", "1:4: aliases are not supported: write the value out"),
        ("a: !!str 1\n", "1:4: tags are not supported: write the value out"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins here; only one is read"),
        ("? [a, b]\n: 1\n", "1:3: a key must be a plain text, not a list or mapping"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    assert!(error("a: [1\n").contains("not valid YAML"));
    assert!(error("a: 'x\n").contains("not valid YAML"));
}

#[test]
fn limits_hold() {
    assert!(error(&"[".repeat(DEPTH_MAX + 1)).contains("nested more than 64 deep"));
    assert!(error(&"- ".repeat(5000)).contains("nested more than 64 deep"));
    assert!(error(&"- a\n".repeat(NODES_MAX)).contains("more than 1000000 values"));
    assert_eq!(error(&" ".repeat(TEXT_LEN_MAX + 1)), "the text is larger than 10 MiB");
    let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    assert!(parse(&deepest).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_of_yaml_signs_panics(text in "[-:?&*!|>'\"%@`{}\\[\\],#~ab1 \n\t\r.é\u{feff}\u{85}\u{0}]{0,120}") {
        let _ = parse(&text);
    }

    #[test]
    fn quoted_texts_come_back(text in "[ -~é]{0,40}") {
        let quoted = format!("'{}'", text.replace('\'', "''"));
        prop_assert_eq!(parse(&quoted).unwrap().value, Value::String(text));
    }
}
