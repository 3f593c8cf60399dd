//! Images by which the precisions of a network are compared: drawn faces of different ages.

use image::ImageFormat;

use crate::{
    imaging::{Preprocessor, normalise_into},
    inference::ServedModel,
};

/// 128×128 pixels each; a test of `synth` compares them with the drawing code that wrote them.
const FILES: [&[u8]; 8] = [
    include_bytes!("../probes/age-02.png"),
    include_bytes!("../probes/age-09.png"),
    include_bytes!("../probes/age-17.png"),
    include_bytes!("../probes/age-25.png"),
    include_bytes!("../probes/age-34.png"),
    include_bytes!("../probes/age-46.png"),
    include_bytes!("../probes/age-61.png"),
    include_bytes!("../probes/age-80.png"),
];

/// Returns the probes as the network's input.
pub(super) fn preprocessed(model: &ServedModel) -> Vec<Vec<f32>> {
    let mut preprocessor = Preprocessor::new();
    let mut preprocess = |file: &[u8]| {
        let image = image::load_from_memory_with_format(file, ImageFormat::Png)
            .expect("the file is part of the program")
            .into_rgb8();
        let mut values = vec![0.0; model.input.values()];
        let resized = preprocessor.resize(image, model.input.size);
        normalise_into(&resized, &model.input, &mut values);
        values
    };
    FILES.iter().map(|file| preprocess(file)).collect()
}
