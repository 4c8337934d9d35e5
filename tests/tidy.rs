//! What only discipline keeps: which way the arrows between folders point, and that nothing is left half done.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Lines of a file at most; over 400 it should be two.
const LINES_MAX: usize = 600;

/// A folder of the gateway, and the folders that it must not know.
const ARROWS: [(&str, &[&str]); 11] = [
    ("authorize", &["listen", "proxy", "store", "authenticate", "app", "portal", "config"]),
    ("session", &["listen", "proxy", "store", "authenticate", "authorize", "app", "portal"]),
    ("scim", &["listen", "proxy", "store", "authenticate", "authorize", "app", "portal", "config"]),
    (
        "wireguard",
        &["listen", "proxy", "store", "authenticate", "authorize", "app", "portal", "config", "session"],
    ),
    ("store", &["listen", "proxy", "authenticate", "authorize", "app", "portal"]),
    ("proxy", &["listen", "app", "forward_auth", "ext_authz"]),
    ("remote_authorize", &["listen", "proxy", "app", "store", "authenticate", "ext_authz", "forward_auth"]),
    ("authenticate", &["listen", "proxy", "app"]),
    ("listen", &["app", "forward_auth", "ext_authz"]),
    ("forward_auth", &["app", "authenticate", "authorize", "ext_authz", "store"]),
    ("ext_authz", &["app", "authenticate", "authorize", "forward_auth", "store"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "node_modules" && name != "target" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("the file is text");
            found.push((path, text));
        }
    }
    found
}

fn all_sources() -> Vec<(PathBuf, String)> {
    ["client", "gateway", "shared", "tests"].iter().flat_map(|name| sources(&root().join(name))).collect()
}

/// The modules of its own crate that a source names, in `use` or in the middle: `crate::proxy::x`, `crate::{proxy, y}`.
fn own_modules(source: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0_i32, String::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => modules.push(word(std::mem::take(&mut item).trim())),
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        modules.push(word(item.trim()));
    }
    modules
}

#[test]
fn arrows_between_folders_point_one_way() {
    let gateway = root().join("gateway/src");
    for (folder, forbidden) in ARROWS {
        for (path, text) in sources(&gateway) {
            let inside = path.strip_prefix(&gateway).unwrap();
            if !inside.starts_with(folder) && inside != Path::new(&format!("{folder}.rs")) {
                continue;
            }
            for module in own_modules(&text) {
                assert!(!forbidden.contains(&module.as_str()), "{} uses crate::{module}", path.display());
            }
        }
    }
}

#[test]
fn modules_are_read_from_every_form_of_use() {
    let source =
        "use crate::{\n    proxy::{a, b},\n    store,\n};\n// crate::comment\nlet x = crate::session::new();";
    assert_eq!(own_modules(source), ["proxy", "store", "", "session"]);
}

#[test]
fn shared_and_the_two_ends_do_not_know_each_other() {
    for (crate_name, others) in [
        ("shared", ["pomerium_gateway", "pomerium_cli"]),
        ("client", ["pomerium_gateway", "support::"]),
        ("gateway", ["pomerium_cli", "support::"]),
    ] {
        for (path, text) in sources(&root().join(crate_name).join("src")) {
            for other in others {
                let is_used = text.lines().any(|line| line.trim_start().starts_with(&format!("use {other}")));
                assert!(!is_used, "{} uses {other}", path.display());
            }
        }
    }
}

#[test]
fn nothing_is_left_half_done() {
    // Written in two parts, so that this file does not find itself.
    let marks = [concat!("#[ig", "nore"), concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX:")];
    for (path, text) in all_sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it by subject", path.display());
    }
}

#[test]
fn each_advisory_names_tests_that_are_there() {
    let table = std::fs::read_to_string(root().join("docs/advisories.md")).expect("the table is there");
    let sources = all_sources();
    let rows: Vec<_> =
        table.lines().filter(|line| line.starts_with("| CVE-") || line.starts_with("| GHSA-")).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let names: Vec<_> =
            row.rsplit("| ").next().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            let is_there = sources.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
            assert!(is_there, "no test is called {name}: {row}");
        }
    }
}

#[test]
fn no_module_hides_in_a_mod_rs() {
    for (path, _) in all_sources() {
        assert_ne!(path.file_name().and_then(|name| name.to_str()), Some("mod.rs"), "{}", path.display());
    }
}
