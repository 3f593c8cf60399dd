//! Patterns that read the age from the path of an image, for datasets whose file names do not start
//! with the age.

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

/// Name of the group that captures the age.
const GROUP: &str = "age";

/// Longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;

/// Memory limit of a compiled pattern and of each cache of its lazily built automaton, in bytes.
///
/// A search takes at most (size of the program) x (length of the path) steps, so this also limits
/// the time per image.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// A known convention for file names.
struct Shipped {
    name: &'static str,
    pattern: &'static str,
    example: &'static str,
}

/// Named patterns. `/` separates directories; each pattern also matches below directories such as
/// `train`.
const SHIPPED: [Shipped; 7] = [
    // The default reading: the age, then one of `_`, `-`, `.` or a blank.
    Shipped {
        name: "utkface",
        pattern: r"(?:^|/)(?<age>[0-9]+(?:\.[0-9]{1,2})?)[-_. ][^/]*$",
        example: "34_1_0_20170103230340961.jpg.chip.jpg",
    },
    // Running number, person, age, sex.
    Shipped {
        name: "agedb",
        pattern: r"(?i)(?:^|/)[0-9]+_[^/]+_(?<age>[0-9]{1,3})_[mf]\.[^/.]+$",
        example: "12_MariaCallas_35_f.jpg",
    },
    // Person, number of the image, sex, age.
    Shipped {
        name: "morph",
        pattern: r"(?i)(?:^|/)[0-9]+_[0-9]+[mf](?<age>[0-9]{1,3})\.[^/.]+$",
        example: "009055_1M54.JPG",
    },
    // Person, age; a letter distinguishes several images of one age.
    Shipped {
        name: "fgnet",
        pattern: r"(?i)(?:^|/)[0-9]{3}a(?<age>[0-9]{2})[a-z]?\.[^/.]+$",
        example: "001A43a.JPG",
    },
    // Age, person, number of the image.
    Shipped {
        name: "cacd",
        pattern: r"(?:^|/)(?<age>[0-9]{1,3})_[^/]+_[0-9]{4}\.[^/.]+$",
        example: "14_Aaron_Johnson_0001.jpg",
    },
    // A directory per age, in it one per sex: 111 is male, 112 is female.
    Shipped {
        name: "afad",
        pattern: r"(?:^|/)(?<age>[0-9]{1,3})/11[12]/[^/]+$",
        example: "18/111/109-0.jpg",
    },
    Shipped {
        name: "directory",
        pattern: r"(?:^|/)(?<age>[0-9]{1,3})/[^/]+$",
        example: "034/7.png",
    },
];

/// A regular expression with a group `age`, matched against the path of an image relative to its
/// dataset, with `/`.
#[derive(Debug, Clone)]
pub(crate) struct AgePattern {
    /// As given: an expression, or the name of a shipped one.
    text: String,
    regex: Regex,
}

impl PartialEq for AgePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl AgePattern {
    /// Parses an expression or the name of a shipped pattern; an empty text means none.
    ///
    /// # Errors
    /// The rule for a pattern that is too long, is not a regular expression, lacks the group or is
    /// too large when compiled.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "must be at most {MAX_PATTERN_BYTES} bytes long, got {} bytes",
                text.len()
            ));
        }
        let shipped = SHIPPED.iter().find(|shipped| shipped.name == text);
        let regex = compile(shipped.map_or(text, |shipped| shipped.pattern))
            .map_err(|cause| format!("must be {}, got {text:?}: {cause}", expected()))?;
        Ok(Some(AgePattern {
            text: text.to_owned(),
            regex,
        }))
    }

    #[must_use]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns true for the shipped pattern of UTKFace, whose file names also hold group labels.
    pub(super) fn is_utkface(&self) -> bool {
        self.text == "utkface"
    }

    /// Returns the captured age in years, or the reason why the path has none.
    pub(super) fn read(&self, path: &str) -> Result<f32, String> {
        let captured = self.regex.captures(path);
        let Some(age) = captured.as_ref().and_then(|groups| groups.name(GROUP)) else {
            return Err(format!("age_pattern {:?} does not match", self.text));
        };
        let age = age.as_str();
        age.parse::<f32>()
            .ok()
            .filter(|age| age.is_finite())
            .ok_or_else(|| format!("the age {age:?} is not a number"))
    }
}

/// A shipped pattern to compare with.
pub(super) struct Convention {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
    pub(super) pattern: AgePattern,
}

/// Returns the shipped pattern of that name, compiled once per process.
pub(super) fn convention(name: &str) -> Option<&'static Convention> {
    static CONVENTIONS: LazyLock<Vec<Convention>> = LazyLock::new(|| {
        let conventions = SHIPPED.iter().filter_map(|shipped| {
            Some(Convention {
                name: shipped.name,
                example: shipped.example,
                pattern: AgePattern::parse(shipped.name).ok().flatten()?,
            })
        });
        conventions.collect()
    });
    CONVENTIONS
        .iter()
        .find(|convention| convention.name == name)
}

/// The rule for a pattern, for errors and help.
fn expected() -> String {
    let names = SHIPPED.map(|shipped| shipped.name).join(", ");
    format!(
        "a regular expression with a group named age, such as _(?<age>\\d+)\\., or one of {names}"
    )
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| cause(&error))?;
    if regex.capture_names().flatten().any(|name| name == GROUP) {
        return Ok(regex);
    }
    Err("it has no group (?<age>...)".to_owned())
}

/// Returns the last line of the error; the earlier ones draw the position.
fn cause(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!(
            "it compiles to more than {limit} bytes; use smaller repetitions, or [^/]* in place of \\w*"
        );
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> AgePattern {
        AgePattern::parse(text).unwrap().unwrap()
    }

    #[test]
    fn the_shipped_patterns_read_the_names_of_their_datasets() {
        let cases = [
            ("agedb", "0_MariaCallas_35_f.jpg", 35.0),
            ("agedb", "id_0000_MariaCallas/12_MariaCallas_35_f.jpg", 35.0),
            ("agedb", "10000_GlennClose_62_f.jpg", 62.0),
            ("agedb", "train/1000_Jean_Marie_7_101_m.JPG", 101.0),
            ("morph", "009055_1M54.JPG", 54.0),
            ("morph", "Album2/341234_03F16.jpg", 16.0),
            ("fgnet", "001A02.JPG", 2.0),
            ("fgnet", "images/001A43a.JPG", 43.0),
            ("fgnet", "010a07b.jpeg", 7.0),
            ("cacd", "14_Aaron_Johnson_0001.jpg", 14.0),
            ("cacd", "CACD2000/62_Robin_Wright_0016.jpg", 62.0),
            ("afad", "18/111/109-0.jpg", 18.0),
            ("afad", "AFAD-Full/15/112/638660-1.jpg", 15.0),
            ("directory", "034/7.png", 34.0),
            ("directory", "train/1/10007.png", 1.0),
            ("utkface", "34_1_0_20170103230340961.jpg.chip.jpg", 34.0),
            ("utkface", "train/34.5_anna.png", 34.5),
            ("utkface", "7/34.0017.jpg", 34.0),
        ];
        for (name, path, age) in cases {
            assert_eq!(pattern(name).read(path), Ok(age), "{name} {path}");
        }
    }

    #[test]
    fn the_shipped_patterns_do_not_match_other_names() {
        let cases = [
            ("agedb", "34_1_0_20170103230340961.jpg.chip.jpg"),
            ("agedb", "12_MariaCallas_35_x.jpg"),
            ("morph", "34_1_0_20170103230340961.jpg"),
            ("fgnet", "01A02.jpg"),
            ("cacd", "34_1_0_20170103230340961.jpg"),
            ("afad", "18/113/109-0.jpg"),
            ("afad", "111/109-0.jpg"),
            ("directory", "34.png"),
            ("directory", "faces/34.png"),
            ("utkface", "anna_34.jpg"),
        ];
        for (name, path) in cases {
            assert!(pattern(name).read(path).is_err(), "{name} {path}");
        }
    }

    #[test]
    fn every_shipped_pattern_reads_its_example() {
        for shipped in SHIPPED {
            let convention = convention(shipped.name).unwrap();
            assert!(
                convention.pattern.read(convention.example).is_ok(),
                "{}",
                shipped.name
            );
        }
    }

    #[test]
    fn a_pattern_of_the_user_reads_the_group_age() {
        let named = pattern(r"_(?<age>\d+(?:\.\d+)?)y\.");
        assert_eq!(named.read("müller_34.5y.png"), Ok(34.5));
        assert_eq!(
            named.read("34.png").unwrap_err(),
            r#"age_pattern "_(?<age>\\d+(?:\\.\\d+)?)y\\." does not match"#
        );
        // Both spellings of a named group.
        assert_eq!(pattern("^a(?P<age>[0-9]+)").read("a7.png"), Ok(7.0));
        assert_eq!(
            pattern("^(?<age>.*)_").read("thirty_x.png").unwrap_err(),
            "the age \"thirty\" is not a number"
        );
        assert!(pattern("^(?<age>.*)_").read("nan_x.png").is_err());
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_with_the_rule_and_the_cause() {
        let cases = [
            ("(?<age>[0-9]+", "unclosed group"),
            (r"^\d+_", "it has no group (?<age>...)"),
            (
                "agedb2",
                "one of utkface, agedb, morph, fgnet, cacd, afad, directory",
            ),
            (r"(?<age>\w{200})", "it compiles to more than 262144 bytes"),
            (r"(?<age>\d+)(?=_)", "look-around"),
        ];
        for (text, part) in cases {
            let error = AgePattern::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(error.contains("group named age"), "{error}");
        }
        let long = format!("(?<age>[0-9]+){}", "x".repeat(1_011));
        assert_eq!(
            AgePattern::parse(&long).unwrap_err(),
            "must be at most 1024 bytes long, got 1025 bytes"
        );
        assert!(AgePattern::parse(&long[..1_024]).unwrap().is_some());
    }

    #[test]
    fn an_empty_pattern_is_none() {
        assert_eq!(AgePattern::parse(""), Ok(None));
    }
}
