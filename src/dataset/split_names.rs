//! Names of splits, as directories and manifests spell them.

use std::collections::{BTreeMap, BTreeSet};

use super::Split;

/// Spellings of a word that a message names.
const SPELLINGS: usize = 5;

/// The accepted words, for messages.
pub(super) const ACCEPTED: &str =
    "train, training, val, valid, validation, dev, test, testing, eval, evaluation or holdout";

/// A word that names a split, with any ending and companions (`train_set`, `images-test`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Train,
    Val,
    Dev,
    Test,
    /// The validation or the test split, whichever no other word names.
    Eval,
    /// As [`Word::Eval`].
    Holdout,
}

/// Words without meaning beside the name of the split: `test_images`.
const FILLERS: [&str; 15] = [
    "set", "sets", "split", "part", "subset", "data", "dataset", "images", "image", "imgs", "img",
    "faces", "face", "files", "samples",
];

impl Word {
    /// Returns the word of a name, ignoring case, separators, [`FILLERS`] and a year (`val2017`);
    /// `None` for any other name.
    fn of(name: &str) -> Option<Self> {
        let lower = name.trim().to_ascii_lowercase();
        let joined = lower
            .replace("hold-out", "holdout")
            .replace("hold_out", "holdout");
        let joined = joined
            .replace("held-out", "holdout")
            .replace("held_out", "holdout");
        let mut words = joined
            .split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty() && !FILLERS.contains(word));
        let word = words.next()?;
        match words.next() {
            None => Self::of_word(without_year(word)),
            Some(year) if is_year(year) && words.next().is_none() => Self::of_word(word),
            Some(_) => None,
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        let filler = FILLERS.iter().find_map(|filler| word.strip_suffix(filler));
        match filler.filter(|rest| !rest.is_empty()).unwrap_or(word) {
            "train" | "training" | "trn" => Some(Self::Train),
            "val" | "valid" | "validation" | "validate" => Some(Self::Val),
            "dev" | "devel" | "development" => Some(Self::Dev),
            "test" | "testing" | "tst" => Some(Self::Test),
            "eval" | "evaluation" => Some(Self::Eval),
            "holdout" | "heldout" => Some(Self::Holdout),
            _ => None,
        }
    }
}

fn is_year(text: &str) -> bool {
    text.len() == 4
        && (text.starts_with("19") || text.starts_with("20"))
        && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_year(word: &str) -> &str {
    match word
        .len()
        .checked_sub(4)
        .and_then(|at| word.split_at_checked(at))
    {
        Some((rest, year)) if is_year(year) => rest,
        _ => word,
    }
}

/// Collects the names that occur, before any of them is interpreted.
#[derive(Debug, Default)]
pub(super) struct SplitNames(BTreeMap<Word, BTreeSet<String>>);

impl SplitNames {
    /// Adds a name, unless it does not name a split.
    pub(super) fn add(&mut self, name: &str) {
        let Some(word) = Word::of(name) else { return };
        let spellings = self.0.entry(word).or_default();
        if spellings.len() < SPELLINGS {
            spellings.insert(name.trim().to_owned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the split of each word.
    ///
    /// `eval` and `holdout` are the validation split if no other word names it, otherwise the test
    /// split. Spellings of one word (`val`, `valid`) are one split, with a warning.
    ///
    /// # Errors
    /// A sentence about two words for one split, which may or may not mean the same.
    pub(super) fn resolve(self) -> Result<SplitMap, String> {
        let mut parts = SplitMap::default();
        let mut by_part: BTreeMap<Split, (Word, String)> = BTreeMap::new();
        // In the order of the words, so that the words with two meanings come last.
        for (word, spellings) in &self.0 {
            let shown = quoted(spellings);
            let split = match word {
                Word::Train => Split::Train,
                Word::Val | Word::Dev => Split::Val,
                Word::Test => Split::Test,
                Word::Eval | Word::Holdout => {
                    let split = match by_part.contains_key(&Split::Val) {
                        false => Split::Val,
                        true => Split::Test,
                    };
                    parts.warnings.push(format!(
                        "the split {shown} is used as the {} split; rename it to test or validation if that is not meant",
                        name_of(split)
                    ));
                    split
                }
            };
            if let Some((_, earlier)) = by_part.insert(split, (*word, shown.clone())) {
                return Err(format!(
                    "{earlier} and {shown} both name the {} split; rename one of them or join them under one name",
                    name_of(split)
                ));
            }
            let lower: BTreeSet<String> = spellings
                .iter()
                .map(|one| one.to_ascii_lowercase())
                .collect();
            if lower.len() > 1 {
                parts.warnings.push(format!(
                    "the splits {shown} are used together as the {} split",
                    name_of(split)
                ));
            }
            parts.words.insert(*word, split);
        }
        Ok(parts)
    }
}

/// Splits of one dataset by name.
#[derive(Debug, Default)]
pub(super) struct SplitMap {
    words: BTreeMap<Word, Split>,
    pub(super) warnings: Vec<String>,
}

impl SplitMap {
    /// Returns `None` for a name that does not name a split.
    pub(super) fn get(&self, name: &str) -> Option<Split> {
        self.words.get(&Word::of(name)?).copied()
    }
}

/// Returns true for a name that contains the name of a split without being one, such as `my_test`
/// or `trainval`. Val and Dev are also names of people, after whom directories are named.
pub(super) fn resembles_a_split(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|letter: char| !letter.is_alphanumeric());
    let is_part = |word| {
        let found = Word::of(word);
        found.is_some_and(|word| !matches!(word, Word::Val | Word::Dev))
    };
    Word::of(name).is_none() && (lower == "trainval" || words.any(is_part))
}

fn name_of(split: Split) -> &'static str {
    match split {
        Split::Train => "training",
        Split::Val => "validation",
        Split::Test => "test",
    }
}

fn quoted(spellings: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = spellings.iter().map(|one| format!("{one:?}")).collect();
    quoted.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(names: &[&str]) -> Result<Vec<Option<Split>>, String> {
        let mut collected = SplitNames::default();
        for name in names {
            collected.add(name);
        }
        let parts = collected.resolve()?;
        Ok(names.iter().map(|name| parts.get(name)).collect())
    }

    #[test]
    fn common_names_of_the_three_splits_are_recognised() {
        let all = Ok(vec![
            Some(Split::Train),
            Some(Split::Val),
            Some(Split::Test),
        ]);
        for names in [
            ["train", "val", "test"],
            ["Train", "VALID", "Test"],
            ["training", "validation", "testing"],
            ["train", "dev", "test"],
            ["train", "development", "test"],
            ["train", "val", "eval"],
            ["train", "eval", "test"],
            ["train", "validation", "holdout"],
            ["train", "held-out", "test"],
            ["train_set", "val_set", "test_set"],
            ["train-set", "dev-set", "test-set"],
            ["trainset", "validset", "testset"],
            ["TrainSet", "ValSet", "TestSet"],
            ["Training Set", "Validation Set", "Test Set"],
            ["train_images", "val_images", "test_images"],
            ["images-train", "images-val", "images-test"],
            ["train2017", "val2017", "test2017"],
            ["train_2017", "val_2017", "test_2017"],
            ["training_data", "validation_data", "evaluation_data"],
            [" train ", "val", "test"],
        ] {
            assert_eq!(parts(&names), all, "{names:?}");
        }
    }

    #[test]
    fn other_names_are_not_splits() {
        for name in [
            "",
            "a",
            "30",
            "trainer",
            "invalid",
            "latest",
            "contest",
            "trainval",
            "train_val",
            "my_test",
            "test2",
            "2017",
            "set",
            "images",
            "развитие",
        ] {
            assert_eq!(Word::of(name), None, "{name:?}");
        }
        for name in ["my_test", "trainval", "train_val", "utkface-train"] {
            assert!(resembles_a_split(name), "{name:?}");
        }
        for name in [
            "train",
            "invalid",
            "contest",
            "images",
            "Val_Kilmer",
            "a",
            "",
        ] {
            assert!(!resembles_a_split(name), "{name:?}");
        }
    }

    #[test]
    fn eval_is_the_split_that_no_other_name_has() {
        assert_eq!(
            parts(&["train", "eval"]),
            Ok(vec![Some(Split::Train), Some(Split::Val)])
        );
        assert_eq!(
            parts(&["train", "dev", "eval"]),
            Ok(vec![
                Some(Split::Train),
                Some(Split::Val),
                Some(Split::Test)
            ])
        );
        let error = parts(&["train", "val", "test", "eval"]).unwrap_err();
        assert!(
            error.contains("\"test\" and \"eval\" both name the test split"),
            "{error}"
        );
    }

    #[test]
    fn two_words_for_one_split_are_refused_and_two_spellings_are_one_split() {
        let error = parts(&["train", "val", "dev"]).unwrap_err();
        assert!(
            error.contains("\"val\" and \"dev\" both name the validation split"),
            "{error}"
        );
        let mut names = SplitNames::default();
        for name in ["train", "Train", "val", "valid"] {
            names.add(name);
        }
        let parts = names.resolve().unwrap();
        assert_eq!(
            (parts.get("val"), parts.get("valid")),
            (Some(Split::Val), Some(Split::Val))
        );
        assert_eq!(
            parts.warnings,
            ["the splits \"val\" and \"valid\" are used together as the validation split"]
        );
    }
}
