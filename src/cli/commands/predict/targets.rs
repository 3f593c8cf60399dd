//! Files for annotated and explained images.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::cli::error::Error;

/// Target files of each input; empty without the option.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) annotated: Vec<PathBuf>,
    /// With faces, the number of the face is appended to the name.
    pub(super) explained: Vec<PathBuf>,
    /// Canonical paths of the inputs, which must not be overwritten.
    inputs: HashSet<PathBuf>,
}

/// One of the two options.
struct DrawOption<'a> {
    option: &'static str,
    /// The drawn image, for messages.
    drawn: &'static str,
    out: &'a Path,
    /// True if an input may result in several images.
    has_several: bool,
}

impl Targets {
    /// Chooses the files and creates their directories.
    pub(super) fn new(
        files: &[PathBuf],
        annotate: Option<&Path>,
        explain: Option<&Path>,
        has_faces: bool,
    ) -> Result<Self, Error> {
        if let (Some(one), Some(other)) = (annotate, explain)
            && canonical(one) == canonical(other)
            && !one.is_dir()
            && is_png(one)
        {
            return Err(Error::Usage(format!(
                "--annotate and --explain cannot both write {}",
                one.display()
            )));
        }
        let mut taken: HashSet<PathBuf> = files.iter().map(|file| canonical(file)).collect();
        let mut targets = Targets {
            inputs: taken.clone(),
            ..Targets::default()
        };
        if let Some(out) = annotate {
            let option = DrawOption {
                option: "--annotate",
                drawn: "the annotated image",
                out,
                has_several: false,
            };
            targets.annotated = option.targets(files, &mut taken)?;
        }
        if let Some(out) = explain {
            let option = DrawOption {
                option: "--explain",
                drawn: "the explained image",
                out,
                has_several: has_faces,
            };
            targets.explained = option.targets(files, &mut taken)?;
        }
        Ok(targets)
    }

    /// Target of the explanation of a face, counted from 1.
    pub(super) fn explained_face(&self, index: usize, face: usize) -> Option<PathBuf> {
        let base = self.explained.get(index)?;
        let stem = base.file_stem().unwrap_or_default().to_string_lossy();
        let mut target = base.with_file_name(format!("{stem}-face{face}.png"));
        while self.inputs.contains(&canonical(&target)) {
            let stem = target.file_stem().unwrap_or_default().to_string_lossy();
            target = base.with_file_name(format!("{stem}-explained.png"));
        }
        Some(target)
    }
}

impl DrawOption<'_> {
    fn targets(
        &self,
        files: &[PathBuf],
        taken: &mut HashSet<PathBuf>,
    ) -> Result<Vec<PathBuf>, Error> {
        let (option, out) = (self.option, self.out);
        if files.len() == 1 && !out.is_dir() && !self.has_several {
            if !is_png(out) {
                return Err(Error::Usage(format!(
                    "{} is a PNG, so {option} must end in .png or be an existing directory, got {}",
                    self.drawn,
                    out.display()
                )));
            }
            taken.insert(canonical(out));
            return Ok(vec![out.to_owned()]);
        }
        if (is_png(out) && !out.is_dir()) || out.is_file() {
            let reason = match self.has_several {
                true => "with --detect-faces an image may have several faces, so".to_owned(),
                false => format!("with {} images", files.len()),
            };
            return Err(Error::Usage(format!(
                "{reason} {option} must be a directory, got {}",
                out.display()
            )));
        }
        fs::create_dir_all(out).map_err(Error::File)?;
        // `a/x.jpg` and `b/x.jpg` need different targets, and inputs must not be overwritten.
        let mut targets = Vec::with_capacity(files.len());
        for file in files {
            let stem = match file.as_path() == Path::new("-") {
                true => "stdin".to_owned(),
                false => file
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            };
            let mut target = out.join(format!("{stem}.png"));
            let mut count = 2;
            while !taken.insert(canonical(&target)) {
                target = out.join(format!("{stem}-{count}.png"));
                count += 1;
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

/// Canonical path of a file that may not exist yet.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    match (fs::canonicalize(directory), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

fn is_png(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_not_overwritten_whatever_their_paths_look_like() {
        let directory = tempfile::tempdir().unwrap();
        let faces = directory.path().join("faces");
        fs::create_dir_all(&faces).unwrap();
        let files = ["a.png", "b.jpg", "b-face1.png"].map(|name| {
            fs::write(faces.join(name), b"theirs").unwrap();
            // Another path of the same file, independent of the current directory.
            faces.join("../faces").join(name)
        });
        let annotated = Targets::new(&files, Some(&faces), None, false).unwrap();
        let expected = ["a-2.png", "b.png", "b-face1-2.png"].map(|name| faces.join(name));
        assert_eq!(annotated.annotated, expected);
        let explained = Targets::new(&files, None, Some(&faces), true).unwrap();
        assert_eq!(
            explained.explained_face(1, 1),
            Some(faces.join("b-face1-explained.png"))
        );
        assert_eq!(
            explained.explained_face(1, 2),
            Some(faces.join("b-face2.png"))
        );
    }

    #[test]
    fn a_missing_file_has_one_canonical_path() {
        let directory = tempfile::tempdir().unwrap();
        let faces = directory.path().join("faces");
        fs::create_dir_all(&faces).unwrap();
        assert_eq!(
            canonical(&faces.join("../faces/new.png")),
            canonical(&faces.join("new.png"))
        );
        assert_eq!(
            canonical(Path::new("new.png")),
            canonical(Path::new("./new.png"))
        );
    }
}
