//! The reference tables match the program, and imports follow the module layers.

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
        &visage::config::markdown_table(),
        "`visage config --markdown`",
    );
}

#[test]
fn the_book_lists_the_metrics() {
    assert_table_of(
        "metrics.md",
        &visage::telemetry::metrics::markdown_table(),
        "`visage config --metrics`",
    );
}

/// Module, and the modules of ours that it must not use. The composition root and the command line
/// may use everything.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // They know nothing of each other: the registry joins them.
    (
        "training",
        &["inference", "library", "services", "server", "cli"],
    ),
    (
        "inference",
        &[
            "training", "registry", "library", "store", "services", "server", "cli",
        ],
    ),
    // Both of them use it, so it uses neither.
    (
        "evaluation",
        &[
            "dataset",
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    ("registry", &["services", "server", "cli"]),
    // It speaks of datasets in the words of the API, which training::report has.
    (
        "library",
        &[
            "inference",
            "registry",
            "model",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "store",
        &[
            "training",
            "inference",
            "registry",
            "services",
            "model",
            "dataset",
            "server",
            "cli",
        ],
    ),
    (
        "artifacts",
        &[
            "store",
            "training",
            "inference",
            "registry",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "model",
        &[
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "dataset",
        &[
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "model",
            "server",
            "cli",
        ],
    ),
    (
        "imaging",
        &[
            "model",
            "dataset",
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    // Pixels in, squares out; inference alone uses it.
    (
        "detection",
        &[
            "imaging",
            "model",
            "dataset",
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "synth",
        &[
            "model",
            "dataset",
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "telemetry",
        &[
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    (
        "config",
        &[
            "training",
            "inference",
            "registry",
            "store",
            "services",
            "server",
            "cli",
        ],
    ),
    ("services", &["server", "cli"]),
];

/// Words that only certain files may contain, outside of unit tests.
const CONFINED: &[(&str, &[&str])] = &[
    ("Status::internal(", &["services/"]),
    ("Status::with_error_details(", &["services/status/"]),
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
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (module, forbidden) in FORBIDDEN {
        for (path, text) in sources_of(module) {
            for used in uses(&text) {
                if forbidden.contains(&used.as_str()) {
                    wrong.push(format!("{} uses {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

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

/// Finds imports in braces, imports in one line, and paths in code.
#[test]
fn uses_are_found_however_they_are_written() {
    let text = "use crate::{\n    store::{self, Store},\n    names,\n};\nuse crate::model::Error;\nfn f() { crate::registry::g(); } // crate::cli\n";
    assert_eq!(uses(text), ["store", "names", "model", "registry"]);
}

/// The modules of Visage that a file names, in any form.
fn uses(text: &str) -> Vec<String> {
    let code: String = code_lines(text).map(|line| format!("{line}\n")).collect();
    let mut found = Vec::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut at_item = true;
                for (index, letter) in list.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_item = true,
                        letter if at_item && depth == 0 && letter.is_alphanumeric() => {
                            found.push(word(&list[index..]));
                            at_item = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
}

fn sources_of(module: &str) -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let mut sources = Vec::new();
    let file = src.join(module).with_extension("rs");
    if file.is_file() {
        sources.push((file.clone(), fs_err::read_to_string(&file).unwrap()));
    }
    if src.join(module).is_dir() {
        sources.extend(sources_under(&src.join(module)));
    }
    assert!(!sources.is_empty(), "there is no module {module}");
    sources
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
