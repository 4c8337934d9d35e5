//! The table for administrators names every word of the language, and a test that shows it.

use std::{collections::BTreeMap, fs, path::Path};

use super::super::{Reason, ppl::CRITERIA};

const MATCHERS: [&str; 8] = ["string", "list", "IP", "ASN", "date", "day of week", "time of day", "record"];

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(folder().join("../docs/policy.md")).unwrap()
}

/// The rows of the tables below a heading: first cell to last cell, both without back-ticks.
fn rows(page: &str, heading: &str) -> BTreeMap<String, String> {
    let (_, below) =
        page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let section = below.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
        (cells[0].clone(), cells[cells.len() - 1].clone())
    })
    .collect()
}

/// The body of the test of this name, `file::name`.
fn body(test: &str) -> String {
    let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test:?} is no `file::test`"));
    let text = fs::read_to_string(folder().join(format!("src/authorize/tests/{file}.rs"))).unwrap();
    let begin = text.find(&format!("#[test]\nfn {name}(")).unwrap_or_else(|| panic!("no test {test}"));
    text[begin..].split("\n}\n").next().unwrap().to_owned()
}

#[test]
fn every_criterion_is_in_the_table_with_a_test_that_uses_it() {
    let page = page();
    let table = rows(&page, "Criteria");
    for name in CRITERIA {
        let row = if *name == "claim" { "claim/PATH" } else { name };
        let test = table.get(row).unwrap_or_else(|| panic!("docs/policy.md has no row for {row}"));
        let uses = if *name == "claim" { "claim/".to_owned() } else { format!("{name}:") };
        assert!(body(test).contains(&uses), "{test} does not use {name}");
    }
    let known = |row: &String| row == "name" || row == "claim/PATH" || CRITERIA.contains(&row.as_str());
    let unknown: Vec<_> = table.keys().filter(|row| !known(row)).collect();
    assert!(unknown.is_empty(), "no such criteria: {unknown:?}");
}

#[test]
fn every_matcher_is_in_the_table_with_a_test() {
    let table = rows(&page(), "Matchers");
    for name in MATCHERS {
        let test = table.get(name).unwrap_or_else(|| panic!("docs/policy.md has no row for {name}"));
        assert!(body(test).contains("assert"), "{test}");
    }
}

#[test]
fn every_reason_code_is_on_the_page() {
    let page = page();
    for reason in Reason::ALL {
        assert!(page.contains(&format!("`{reason}`")), "docs/policy.md does not name {reason}");
    }
}

#[test]
fn the_criteria_are_in_alphabetical_order() {
    assert!(CRITERIA.is_sorted());
}

/// Each example of the page is a policy that loads.
#[test]
fn every_example_of_the_page_loads() {
    let page = page();
    let examples: Vec<_> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let node = crate::yaml::parse(example).unwrap();
        let loaded = super::super::ppl::parse(&node);
        assert!(loaded.is_ok(), "{example}\n{loaded:?}");
    }
}
