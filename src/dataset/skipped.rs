//! Ignored files that may have been meant as images.

/// Names in a warning.
const EXAMPLES: usize = 5;

/// Counts these files by reason, and keeps the first names of each.
///
/// Common companions of images, such as `Thumbs.db` and texts, are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    not_images: Names,
    copies: Names,
    archives: Names,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    count: u64,
    examples: Vec<String>,
}

impl Names {
    fn add(&mut self, name: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(name);
        }
    }

    /// `3 files are ignored because ..., for example a, b`.
    fn sentence(&self, noun: &str, reason: &str, remedy: &str) -> Option<String> {
        let (verb, plural) = match self.count {
            0 => return None,
            1 => ("is", ""),
            _ => ("are", "s"),
        };
        Some(format!(
            "{} {noun}{plural} {verb} ignored because {reason}, for example {}; {remedy}",
            self.count,
            self.examples.join(", ")
        ))
    }
}

impl Skipped {
    /// A file whose content is not an image of a supported format.
    pub(crate) fn not_an_image(&mut self, name: String) {
        self.not_images.add(name);
    }

    /// A file whose name is that of an image beside it with a suffix, as programs name backups and
    /// other sizes. As a separate image it could be assigned to another split than the original.
    pub(crate) fn copy(&mut self, name: String) {
        self.copies.add(name);
    }

    /// An archive inside an archive.
    pub(crate) fn archive(&mut self, name: String) {
        self.archives.add(name);
    }

    /// Returns one sentence for each reason that occurred.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let sentences = [
            self.not_images.sentence(
                "file",
                "the content is not a JPEG, PNG, WebP or BMP image",
                "convert images of other formats to have them used",
            ),
            self.copies.sentence(
                "file",
                "the name extends that of an image beside it, as that of a backup does",
                "rename images that are not copies",
            ),
            self.archives.sentence(
                "archive",
                "it is inside the archive",
                "upload its images without the inner archive to have them used",
            ),
        ];
        sentences.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_one_sentence_with_the_number_and_the_first_names() {
        let mut skipped = Skipped::default();
        assert_eq!(skipped.warnings(), Vec::<String>::new());
        for number in 0..7 {
            skipped.not_an_image(format!("{number}.heic"));
        }
        skipped.copy("20_a.jpg_original".to_owned());
        let warnings = skipped.warnings();
        assert_eq!(
            warnings,
            [
                "7 files are ignored because the content is not a JPEG, PNG, WebP or BMP image, \
                 for example 0.heic, 1.heic, 2.heic, 3.heic, 4.heic; \
                 convert images of other formats to have them used",
                "1 file is ignored because the name extends that of an image beside it, as that \
                 of a backup does, for example 20_a.jpg_original; rename images that are not copies",
            ]
        );
    }
}
