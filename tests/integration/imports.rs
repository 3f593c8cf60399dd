//! The modules of `src` import one way, and no file is part of a large import cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The top-level modules from the highest layer to the lowest. A module imports modules of lower
/// layers only, so that no cycle can exist, not even over several modules.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["services"],
    &["registry", "backup", "maintenance"],
    // Training, inference and the named datasets never reach each other; the registry joins
    // training and inference. Drawn faces are for the command line and for tests.
    &["training", "inference", "datasets", "synth"],
    &["evaluation"],
    &["model", "dataset", "store"],
    &["artifacts", "detection"],
    &["imaging", "dashboard", "telemetry"],
    &["access"],
    &["config"],
    &["quarantine", "disk"],
    &["names", "files", "priority"],
    &["proto"],
];

/// The most files of a cycle inside one module: two files that belong together, not three.
const MOST_FILES_OF_A_CYCLE: usize = 2;

/// The modules of `src` by path, for example `inference::engine`, with their code.
struct Sources(BTreeMap<Vec<String>, String>);

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        read_directory(&root, &mut Vec::new(), &mut files);
        assert!(files.len() > 100, "{} files in {root:?}", files.len());
        Self(files)
    }

    /// The imports of a file: the modules whose items it names, re-exports followed to the module
    /// that has the item.
    fn imports(&self, module: &[String]) -> BTreeSet<Vec<String>> {
        paths(&self.0[module])
            .into_iter()
            .map(|path| self.resolve(&absolute(&path, module)))
            .filter(|found| found != module)
            .collect()
    }

    /// The module of an item: the longest part of the path that is a file, then the file that it
    /// re-exports the item from.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let length = (0..=path.len())
            .rev()
            .find(|length| self.0.contains_key(&path[..*length]))
            .unwrap_or(0);
        let module = &path[..length];
        let Some(item) = path.get(length) else {
            return module.to_vec();
        };
        let reexported = self.0.get(module).and_then(|text| {
            exported_paths(text)
                .into_iter()
                .find(|exported| exported.last() == Some(item))
        });
        match reexported {
            None => module.to_vec(),
            Some(exported) => {
                let target = if matches!(exported[0].as_str(), "crate" | "self" | "super") {
                    absolute(&exported, module)
                } else {
                    [module, &exported].concat()
                };
                if target[..] == path[..] {
                    module.to_vec()
                } else {
                    self.resolve(&target)
                }
            }
        }
    }
}

fn read_directory(
    directory: &Path,
    module: &mut Vec<String>,
    files: &mut BTreeMap<Vec<String>, String>,
) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name.contains("tests") || name == "web" {
            continue;
        }
        if path.is_dir() {
            module.push(name);
            read_directory(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = code(&fs_err::read_to_string(&path).unwrap());
            let mut module = module.clone();
            if !matches!(name.as_str(), "mod" | "lib" | "main") {
                module.push(name);
            }
            files.insert(module, text);
        }
    }
}

/// The text without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// All paths that begin with `crate`, `super` or `self`, lists in braces expanded.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (position, _) in text.match_indices(start) {
            let before = text[..position].chars().next_back();
            if before.is_none_or(|letter| !letter.is_alphanumeric() && !"_:".contains(letter)) {
                expand(&mut text[position..].chars().peekable(), &[], &mut found);
            }
        }
    }
    found
}

/// The paths of `pub use` and `pub(..) use` in a file.
fn exported_paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (position, _) in text.match_indices("pub") {
        let rest = text[position + 3..].trim_start();
        let rest = match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')').map_or("", |(_, rest)| rest),
            None => rest,
        };
        if let Some(tree) = rest.trim_start().strip_prefix("use ") {
            expand(&mut tree.chars().peekable(), &[], &mut found);
        }
    }
    found
}

/// Reads one tree of a `use` declaration, or a path in code, and adds its paths.
fn expand(
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) {
    while text.next_if(|letter| letter.is_whitespace()).is_some() {}
    if text.next_if_eq(&'{').is_some() {
        loop {
            expand(text, before, found);
            // An alias (`as name`) and white space.
            while text.next_if(|letter| !",}".contains(*letter)).is_some() {}
            if text.next() != Some(',') {
                return;
            }
        }
    }
    let mut word = String::new();
    while let Some(letter) = text.next_if(|letter| letter.is_alphanumeric() || *letter == '_') {
        word.push(letter);
    }
    // The end of a list after its last comma.
    if word.is_empty() && text.peek() == Some(&'}') {
        return;
    }
    let mut path = before.to_vec();
    // `a::{self, b}` and the glob `a::*` name `a` itself.
    if !word.is_empty() && (word != "self" || before.is_empty()) {
        path.push(word);
    }
    let mut ahead = text.clone();
    let goes_deeper = ahead.next() == Some(':')
        && ahead.next() == Some(':')
        && ahead
            .peek()
            .is_some_and(|letter| letter.is_alphabetic() || "_{".contains(*letter));
    if goes_deeper {
        text.nth(1);
        expand(text, &path, found);
    } else if !path.is_empty() {
        found.push(path);
    }
}

/// The path from the root of the crate; `module` is the one that the path stands in.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        _ => module.to_vec(),
    };
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => {
                base.pop();
            }
            _ => break,
        }
        rest = others;
    }
    base.extend_from_slice(rest);
    base
}

#[test]
fn modules_import_lower_layers_only() {
    let sources = Sources::read();
    let layer = |module: &str| {
        LAYERS
            .iter()
            .position(|layer| layer.contains(&module))
            .unwrap_or_else(|| panic!("{module} has no layer; give it one in LAYERS"))
    };
    let mut wrong = Vec::new();
    for module in sources.0.keys().filter(|module| !module.is_empty()) {
        for import in sources.imports(module) {
            let Some(used) = import.first().filter(|used| **used != module[0]) else {
                continue;
            };
            if layer(&module[0]) >= layer(used) {
                wrong.push(format!(
                    "{} imports {}",
                    module.join("::"),
                    import.join("::")
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} imports:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Edges to and from `mod.rs` are left out: it declares its files and names what they export.
#[test]
fn files_of_a_module_form_no_large_cycles() {
    let sources = Sources::read();
    let is_parent = |module: &Vec<String>| {
        sources
            .0
            .keys()
            .any(|other| other.len() > module.len() && other.starts_with(module))
    };
    let files: Vec<_> = sources.0.keys().filter(|file| !is_parent(file)).collect();
    let imports: Vec<BTreeSet<usize>> = files
        .iter()
        .map(|file| {
            let imports = sources.imports(file);
            imports
                .iter()
                .filter_map(|import| files.binary_search(&import).ok())
                .collect()
        })
        .collect();
    let reached: Vec<BTreeSet<usize>> = (0..files.len())
        .map(|file| reached_from(file, &imports))
        .collect();
    let mut cycles = BTreeSet::new();
    for file in 0..files.len() {
        let cycle: Vec<_> = reached[file]
            .iter()
            .filter(|other| reached[**other].contains(&file))
            .map(|other| files[*other].join("::"))
            .collect();
        if cycle.len() > MOST_FILES_OF_A_CYCLE {
            cycles.insert(cycle.join(", "));
        }
    }
    let cycles: Vec<_> = cycles.into_iter().collect();
    assert!(
        cycles.is_empty(),
        "{} cycles:\n{}",
        cycles.len(),
        cycles.join("\n")
    );
}

fn reached_from(start: usize, imports: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut ahead = vec![start];
    while let Some(file) = ahead.pop() {
        for next in &imports[file] {
            if reached.insert(*next) {
                ahead.push(*next);
            }
        }
    }
    reached
}

/// The test sees an import in braces, in one line, in the code, and behind a re-export.
#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{\n    store::{self, Store as S},\n    names,\n};\nuse super::model::Error;\n\
                fn f() { crate::registry::g::<u8>(); } // crate::cli\n";
    let found: Vec<_> = paths(&code(text))
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "crate::store",
        "crate::store::Store",
        "crate::names",
        "crate::registry::g",
        "super::model::Error",
    ];
    assert_eq!(found, expected);
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    let sources = Sources(BTreeMap::from([
        (Vec::new(), String::new()),
        (module("a"), "pub(crate) use b::{Deep, Other};".to_owned()),
        (module("a::b"), "pub use self::c::Deep;".to_owned()),
        (module("a::b::c"), "pub struct Deep;".to_owned()),
        (module("d"), "use crate::a::{Deep, Other};".to_owned()),
    ]));
    let imports = BTreeSet::from([module("a::b"), module("a::b::c")]);
    assert_eq!(sources.imports(&module("d")), imports);
    let from_below = absolute(&module("super::super::x"), &module("a::b::c"));
    assert_eq!(from_below, module("a::x"));
}
