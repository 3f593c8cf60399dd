//! Arguments of `visage predict`.

use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  visage predict me.jpg
  visage predict faces/ -o ages.csv                a directory with all its images, into a table
  visage predict faces/ more/*.jpg -o ages.jsonl
  visage predict faces/*.jpg --json
  visage predict me.jpg --interval 0.8
  visage predict me.jpg --annotate out.png
  visage predict *.jpg --annotate drawn/ --version 3
  visage predict me.jpg --explain heat.png
  visage predict group.jpg --detect-faces --annotate out.png
  curl -s https://example.org/me.jpg | visage predict -

A file that cannot be used is reported, and the others are predicted. The exit
code is then 1; with --output, where such files are rows with an error, only if
no image was predicted. With --json and in a .jsonl file, `durations` are those
of the whole request, which may have several images.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// JPEG, PNG, WebP or BMP files, or directories, whose images are found in all sub-directories;
    /// `-` reads one image from standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Version: a number, an alias, or `models/MODEL/versions/VERSION` [default: live]
    #[arg(long, alias = "model", value_name = "VERSION")]
    pub(super) version: Option<String>,
    /// Write the results to this .csv or .jsonl file instead; replaced if it exists
    #[arg(long, short, value_name = "TABLE")]
    pub(super) output: Option<PathBuf>,
    /// Confidence level of the interval, such as 0.8, rounded up to a level that the version
    /// supports [default: 0.9]
    #[arg(long, value_name = "LEVEL")]
    pub(super) interval: Option<f64>,
    /// Also write the image with the age drawn on it: a .png file for one image, a directory for
    /// several
    #[arg(long, value_name = "OUT")]
    pub(super) annotate: Option<PathBuf>,
    /// Also write a heat map of the image regions that raise (warm) or lower (cool) the age: a .png
    /// file for one image, a directory for several and for faces
    #[arg(long, value_name = "OUT")]
    pub(super) explain: Option<PathBuf>,
    /// Detect the faces and predict each of them, one line per face
    #[arg(long)]
    pub(super) detect_faces: bool,
    /// Average over each image and its mirror image: slightly more accurate, twice the computation
    #[arg(long)]
    pub(super) average_flip: bool,
}

impl Args {
    /// Optional features of the server that the flags need.
    pub(super) fn features(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("explain", self.explain.is_some()),
            ("detect_faces", self.detect_faces),
            ("average_flip", self.average_flip),
        ];
        flags
            .into_iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(feature, _)| feature)
    }
}
