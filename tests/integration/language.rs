//! Texts use standard technical English, and comments fit into 100 columns.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use regex::Regex;

const COLUMNS: usize = 100;

/// A phrase that a reader has to read twice, the standard wording, and the uses of the phrase that
/// are standard English.
struct Phrase {
    pattern: &'static str,
    instead: &'static str,
    allowed: Option<&'static str>,
}

const fn phrase(pattern: &'static str, instead: &'static str) -> Phrase {
    Phrase {
        pattern,
        instead,
        allowed: None,
    }
}

const PHRASES: &[Phrase] = &[
    Phrase {
        pattern: r"(?i)(\w+ )?\b(is|are|was|were) no \w+",
        instead: "is not a, is missing, has no",
        allowed: Some(r"(?i)^there |no (longer|more|less|later|earlier)$"),
    },
    phrase(r"\b(is|are|was|were) none\b", "is missing, does not exist"),
    phrase(r"(?i)\bbe had\b", "is unavailable, is not supported"),
    phrase(r"(?i)\bmade of\b", "created from, consists of"),
    phrase(r"(?i)\b(let|lets|letting) go of\b", "releases, evicts"),
    phrase(
        r"(?i)\b(tell|tells|told|telling)\b",
        "reports, distinguishes",
    ),
    phrase(r"(?i)\b(go|goes|going|went) on\b", "continues, resumes"),
    phrase(
        r"(?i)\b(give|gives|gave|giving) way\b",
        "yields, has a lower priority",
    ),
    phrase(r"(?i)\banew\b", "again"),
    phrase(r"(?i)\bof which\b", "a sentence of its own"),
    phrase(r"(?i)\bso many\b", "up to N, that number of"),
    phrase(r"(?i)\bagain and again\b", "repeatedly"),
    phrase(
        r"(?i)\b(wish|wishes|wished|believe|believes)\b",
        "requests, estimates",
    ),
    phrase(r"(?i)\bby itself\b", "on its own, automatically"),
    phrase(r"(?i)\bfolders?\b", "directory"),
    phrase(r"(?i)\bpictures?\b", "image"),
    // Clauses without a head noun at the start of a comment or of a text.
    phrase(
        r#"^\s*(//[/!]?|#|\*|/\*\*) ?(What|Who|Whoever|Whether|That which|The one that|Those|So many|As many)\b"#,
        "start with the noun or the verb: `Compute device.`",
    ),
    phrase(
        r#""(What|Who|Whoever|Whether|Those|So many|As many) [a-z]"#,
        "start with the noun or the verb: `Compute device.`",
    ),
];

/// Lines that may contain a phrase: the file and a part of the line.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The glossary says which words are not used.
    ("src/lib.rs", "not folder; not picture or photograph"),
];

const SCANNED: &[&str] = &[
    "src",
    "proto",
    "deploy",
    "build.rs",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// Files of text by their ends; everything else is data.
const ENDS: &[&str] = &[
    "rs", "proto", "md", "py", "sh", "ts", "tsx", "css", "yml", "yaml", "toml", "service", "go",
];

#[test]
fn texts_use_standard_terms() {
    let phrases: Vec<_> = PHRASES
        .iter()
        .map(|phrase| (phrase, Regex::new(phrase.pattern).unwrap()))
        .collect();
    let mut wrong = String::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            for (phrase, regex) in &phrases {
                if let Some(found) = finding(phrase, regex, line)
                    && !EXCEPTIONS
                        .iter()
                        .any(|(file, part)| path == *file && line.contains(part))
                {
                    let number = number + 1;
                    let instead = phrase.instead;
                    writeln!(wrong, "{path}:{number}: {found:?}; write: {instead}").unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn exceptions_are_needed() {
    let texts = texts();
    for (file, part) in EXCEPTIONS {
        let text = texts.iter().find(|(path, _)| path == file);
        let is_needed = text.is_some_and(|(_, text)| text.contains(part));
        assert!(
            is_needed,
            "{file} does not contain {part:?}; delete the exception"
        );
    }
}

#[test]
fn comments_fit_into_the_columns() {
    let slashes = Regex::new(r"^\s*//").unwrap();
    let hash = Regex::new(r"^\s*#").unwrap();
    let mut wrong = String::new();
    for (path, text) in texts() {
        let comment = match path.rsplit('.').next() {
            Some("md") => continue,
            Some("rs" | "proto" | "ts" | "tsx" | "go") => &slashes,
            _ => &hash,
        };
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            let has_link = line.contains("://");
            if comment.is_match(line) && columns > COLUMNS && !has_link {
                let number = number + 1;
                writeln!(wrong, "{path}:{number}: {columns} columns").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn phrases_are_found_where_they_are_wrong_only() {
    let found = |line: &str| {
        PHRASES.iter().any(|phrase| {
            let regex = Regex::new(phrase.pattern).unwrap();
            finding(phrase, &regex, line).is_some()
        })
    };
    for wrong in [
        "it is no number",
        "/// What computes.",
        "the server told it",
        "# Who asks",
        "error(\"What is left\")",
        "two files, one of which is empty",
    ] {
        assert!(found(wrong), "{wrong}");
    }
    for right in [
        "it is no longer used",
        "there is no GPU",
        "/// Whatever follows",
        "a tellurium atom",
        "// it is not what the client requested",
    ] {
        assert!(!found(right), "{right}");
    }
}

fn finding<'a>(phrase: &Phrase, regex: &Regex, line: &'a str) -> Option<&'a str> {
    let allowed = phrase.allowed.map(|allowed| Regex::new(allowed).unwrap());
    regex
        .find_iter(line)
        .map(|found| found.as_str())
        .find(|found| {
            !allowed
                .as_ref()
                .is_some_and(|allowed| allowed.is_match(found))
        })
}

/// The scanned files by their path below the root, with their text.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ahead: Vec<PathBuf> = SCANNED.iter().map(|name| root.join(name)).collect();
    let mut texts = Vec::new();
    while let Some(path) = ahead.pop() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            // Built or downloaded, and copies of the protos.
            if !matches!(
                name.as_str(),
                "node_modules" | "dist" | "gen" | "build" | "html"
            ) {
                let entries = fs_err::read_dir(&path).unwrap();
                ahead.extend(entries.map(|entry| entry.unwrap().path()));
            }
        } else if ENDS.iter().any(|end| name.ends_with(&format!(".{end}")))
            || matches!(name.as_str(), "Makefile" | "Dockerfile")
        {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap();
            texts.push((relative.to_owned(), fs_err::read_to_string(&path).unwrap()));
        }
    }
    assert!(texts.len() > 300, "{} files", texts.len());
    texts.sort();
    texts
}
