//! Examples in the help of every command: its own, or the lines of its parent that show it.

use clap::Command;

const TITLE: &str = "Examples:\n";
/// Columns of the narrowest terminal on which no line is broken.
const WIDTH: usize = 80;
const INDENT: usize = 2;
/// Longest example that may have its comment beside it, so that the comments of shorter ones stay
/// near.
const MAX_EXAMPLE: usize = 48;
/// Indentation of a comment below its example.
const COMMENT_INDENT: usize = 6;
/// Spaces between an example and its comment, at least.
const GAP: &str = "  ";

/// Copies the examples of a command to those of its subcommands that have none, and aligns the
/// comments of each help.
pub(crate) fn hand_down(command: Command) -> Command {
    let name = command.get_name().to_owned();
    below(command, &name)
}

fn below(command: Command, path: &str) -> Command {
    let shown = command.get_after_help().map(ToString::to_string);
    let names: Vec<String> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    let command = match &shown {
        Some(shown) => command.after_help(aligned(shown)),
        None => command,
    };
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(&name, |subcommand| {
            let path = format!("{path} {name}");
            let own = match (subcommand.get_after_help(), &shown) {
                (None, Some(shown)) => of(&path, shown),
                _ => None,
            };
            let subcommand = match own {
                Some(examples) => subcommand.after_help(examples),
                None => subcommand,
            };
            below(subcommand, &path)
        })
    })
}

/// The example lines of a command.
fn of(path: &str, examples: &str) -> Option<String> {
    let shown = examples.strip_prefix(TITLE)?;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| {
            let rest = line.trim_start().strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
        .collect();
    (!lines.is_empty()).then(|| format!("{TITLE}{}", lines.join("\n")))
}

/// An indented line: an example, and its comment after two spaces or more.
struct Entry<'a> {
    example: &'a str,
    comment: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let line = line.strip_prefix(GAP)?;
        Some(match line.split_once(GAP) {
            Some((example, comment)) => Entry {
                example,
                comment: Some(comment.trim_start()),
            },
            None => Entry {
                example: line,
                comment: None,
            },
        })
    }

    fn fits(&self, column: usize) -> bool {
        let comment = self.comment.map_or(0, str::len);
        self.example.len() <= column && INDENT + column + GAP.len() + comment <= WIDTH
    }
}

/// Aligns the comments of each block of indented lines. A comment for which a line of [`WIDTH`]
/// columns has no place is below its example.
fn aligned(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut written = Vec::new();
    for block in lines.chunk_by(|one, other| one.starts_with(GAP) == other.starts_with(GAP)) {
        let entries: Vec<Entry<'_>> = block.iter().copied().filter_map(Entry::read).collect();
        match entries.is_empty() {
            true => written.extend(wrapped(block)),
            false => written.extend(aligned_block(&entries)),
        }
    }
    written.join("\n")
}

/// Text whose paragraphs have lines of at most [`WIDTH`] columns. A title, which ends with a colon,
/// stays on its own line.
fn wrapped(lines: &[&str]) -> Vec<String> {
    let mut written: Vec<String> = Vec::new();
    let mut continues = false;
    for line in lines {
        let is_title = line.ends_with(':');
        if line.is_empty() || is_title {
            written.push((*line).to_owned());
            continues = false;
            continue;
        }
        for word in line.split(' ') {
            match written.last_mut() {
                Some(last) if continues && last.len() + 1 + word.len() <= WIDTH => {
                    last.push(' ');
                    last.push_str(word);
                }
                _ => written.push(word.to_owned()),
            }
            continues = true;
        }
    }
    written
}

fn aligned_block(entries: &[Entry<'_>]) -> Vec<String> {
    let column = column(entries);
    let mut lines = Vec::new();
    for entry in entries {
        let example = entry.example;
        match entry.comment {
            Some(comment) if entry.fits(column) => {
                lines.push(format!("{GAP}{example:<column$}{GAP}{comment}"));
            }
            comment => {
                lines.push(format!("{GAP}{example}"));
                lines.extend(comment.map(|comment| format!("{:COMMENT_INDENT$}{comment}", "")));
            }
        }
    }
    lines
}

/// Width of the examples with which most comments are beside their example.
fn column(entries: &[Entry<'_>]) -> usize {
    let commented = || entries.iter().filter(|entry| entry.comment.is_some());
    let beside = |column: usize| commented().filter(|entry| entry.fits(column)).count();
    let widths = commented()
        .map(|entry| entry.example.len())
        .filter(|&width| width <= MAX_EXAMPLE);
    // The narrowest of equally good ones.
    widths
        .max_by_key(|&width| (beside(width), usize::MAX - width))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_aligned_or_below_their_example() {
        let text = "\
Examples:
  visage a  first
  visage a --with-a-flag faces/        second
  visage b --grid optimizer.learning_rate=1e-4,3e-4 --set max_epochs=3  third
  visage c

A sentence.";
        let expected = "\
Examples:
  visage a                       first
  visage a --with-a-flag faces/  second
  visage b --grid optimizer.learning_rate=1e-4,3e-4 --set max_epochs=3
      third
  visage c

A sentence.";
        assert_eq!(aligned(text), expected);
    }

    #[test]
    fn paragraphs_are_wrapped_and_titles_are_not() {
        let long = ["word"; 20].join(" ");
        let text = format!("Examples:\n  visage a\n\n{long}\nand more.\n\nFormats:\n  onnx  ages");
        let first = ["word"; 16].join(" ");
        let expected = format!(
            "Examples:\n  visage a\n\n{first}\nword word word word and more.\n\nFormats:\n  onnx  ages"
        );
        assert_eq!(aligned(&text), expected);
    }

    #[test]
    fn a_long_example_does_not_move_the_comments_of_the_others() {
        let comment = "a comment with as many columns as fit beside a short one";
        let text = format!("  visage a  {comment}\n  visage a --with-a-flag faces/  second");
        let expected =
            format!("  visage a  {comment}\n  visage a --with-a-flag faces/\n      second");
        assert_eq!(aligned(&text), expected);
    }
}
