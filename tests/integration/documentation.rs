//! The reference tables match the program, and some words stay in their files.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_table_of(page: &str, table: &str, command: &str) {
    let page = root().join("deploy/book/src/reference").join(page);
    let text = fs_err::read_to_string(&page).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    let expected: Vec<_> = table.trim().lines().collect();
    assert_eq!(
        rows,
        expected,
        "{} differs from the output of {command}",
        page.display()
    );
}

#[test]
fn the_book_lists_the_settings() {
    assert_table_of(
        "settings.md",
        &visage::testing::settings_table(),
        "`visage config --markdown`",
    );
}

#[test]
fn the_book_lists_the_metrics() {
    assert_table_of(
        "metrics.md",
        &visage::testing::metrics_table(),
        "`visage config --metrics`",
    );
}

/// Words that only certain files may contain, outside of unit tests.
const CONFINED: &[(&str, &[&str])] = &[
    ("Status::internal(", &["services/"]),
    // The codec refuses a request before its service sees it.
    (
        "Status::with_error_details(",
        &["services/status/", "proto/codec.rs"],
    ),
    (
        "use tch",
        &[
            "model/",
            "training/",
            "inference/engine/",
            "inference/loaded/",
        ],
    ),
    ("env::var", &["config/environment.rs"]),
    // Names of metrics.
    ("\"visage_", &["telemetry/metrics/"]),
];

#[test]
fn words_stay_in_their_files() {
    let src = root().join("src");
    let mut wrong = Vec::new();
    for (path, text) in sources_under(&src) {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
        if name.contains("tests") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (word, allowed) in CONFINED {
            let is_allowed = allowed.iter().any(|start| name.starts_with(start));
            if !is_allowed && code_lines(code).any(|line| line.contains(word)) {
                wrong.push(format!("{name} contains {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
}

fn sources_under(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources.extend(sources_under(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            sources.push((path.clone(), fs_err::read_to_string(&path).unwrap()));
        }
    }
    sources
}
