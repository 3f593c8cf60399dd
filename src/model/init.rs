//! The choices of initial weights.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use super::{
    Error,
    checkpoint::LabelScale,
    description::Description,
    resnet18::layout,
    starter,
    weights::{
        self, DType, HubOptions, Mismatch, StateDict, check_shapes, check_values, without_head,
    },
};

/// Which weights to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// torchvision's ImageNet weights, with a new head.
    ImageNet,
    /// A `.pth` or `.safetensors` file; its head is kept when it has one output.
    Path {
        /// The file.
        path: String,
        /// The place of the network within it, such as `model_ema`; empty where there is one network only.
        key: String,
    },
    /// Random weights.
    Random,
    /// The face model that is part of this program, with its head.
    Starter,
}

/// Where ImageNet's weights are looked for.
#[derive(Debug, Clone)]
pub struct WeightSources {
    /// Directories that may hold the file, in order.
    pub directories: Vec<PathBuf>,
    /// The hub, asked last.
    pub hub: HubOptions,
}

/// Weights on the CPU and where they come from.
#[derive(Debug)]
pub struct InitialWeights {
    /// Every entry of the layout, in f32; counts in i64.
    pub state: BTreeMap<String, Tensor>,
    /// Which file with which SHA-256, or which seed.
    pub source: String,
}

/// Loads or makes the weights.
///
/// # Errors
/// A file that is missing, damaged or of another network, or a hub that cannot be reached; the sentence says which file to put where.
pub fn load(init: &Init, seed: u64, sources: &WeightSources) -> Result<InitialWeights, Error> {
    let mut state = random(seed)?;
    let source = match init {
        Init::Random => format!("random weights of seed {seed}"),
        Init::Path { path, key } => {
            let (found, file) = read(path, key)?;
            fill(&mut state, found)?;
            if let Some(description) = file.description {
                in_years(&mut state, description.label)?;
            }
            file.source
        }
        Init::ImageNet => {
            let (found, source) = weights::imagenet(&sources.directories, &sources.hub)?;
            fill(&mut state, without_head(found))?;
            format!(
                "{}: {} (SHA-256 {})",
                source.description,
                source.path.display(),
                source.sha256
            )
        }
        Init::Starter => {
            state = exact(&starter::state()?)?;
            format!(
                "the starter of this program (SHA-256 {})",
                starter::sha256()
            )
        }
    };
    Ok(InitialWeights { state, source })
}

/// A file that can be used as [`Init::Path`].
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsFile {
    /// Which file with which SHA-256, and what is taken from it.
    pub source: String,
    /// The description of the age model that it is, whose head predicts years; `None` for any other network.
    pub description: Option<Description>,
}

/// Checks that a file can be used as [`Init::Path`]: reads all of it, values included.
///
/// # Errors
/// A file that is missing, damaged or of another network, or whose values no training can continue from.
pub fn check(path: &str, key: &str) -> Result<WeightsFile, Error> {
    let (found, file) = read(path, key)?;
    check_shapes(&found, &layout(1), &FILLABLE)?;
    check_values(&found)?;
    Ok(file)
}

/// The network in a file, without a head that is replaced.
fn read(path: &str, key: &str) -> Result<(StateDict, WeightsFile), Error> {
    let key = Some(key).filter(|key| !key.is_empty());
    let (found, sha256) = weights::load_resnet18(Path::new(path), key)?;
    let description = Description::find(Path::new(path), &found, &sha256);
    let mut source = format!("{path} (SHA-256 {sha256})");
    if found.place != "." {
        source += &format!(", {:?}", found.place);
    }
    if !found.prefix.is_empty() {
        source += &format!(", names without the prefix {:?}", found.prefix);
    }
    let head: Vec<String> = found
        .state
        .iter()
        .filter(|(name, _)| name.starts_with("fc."))
        .map(|(name, tensor)| format!("{name} {:?}", tensor.shape))
        .take(4)
        .collect();
    let state = without_head(found.state);
    let keeps_head = state.contains_key("fc.weight");
    if !keeps_head {
        source += "; the last layer is random";
        if !head.is_empty() {
            source += &format!(
                ", because the file has {} instead of fc.weight [1, 512]",
                head.join(", ")
            );
        }
    }
    let file = WeightsFile {
        source,
        description: description.filter(|_| keeps_head),
    };
    Ok((state, file))
}

/// Makes a head whose output is on this scale predict years.
fn in_years(state: &mut BTreeMap<String, Tensor>, label: LabelScale) -> Result<(), Error> {
    let LabelScale { scale, offset } = label;
    if (scale, offset) == (1.0, 0.0) {
        return Ok(());
    }
    let weight = state["fc.weight"].f_mul_scalar(scale)?;
    let bias = state["fc.bias"].f_mul_scalar(scale)?.f_add_scalar(offset)?;
    state.insert("fc.weight".to_owned(), weight);
    state.insert("fc.bias".to_owned(), bias);
    Ok(())
}

/// A whole network from what a file holds, head included.
///
/// # Errors
/// Other names or shapes than the network's.
pub fn exact(found: &StateDict) -> Result<BTreeMap<String, Tensor>, Error> {
    check_shapes(found, &layout(1), &Mismatch::default())?;
    found
        .iter()
        .map(|(name, data)| Ok((name.clone(), tensor(data)?)))
        .collect()
}

/// Random weights as torchvision makes them: He et al. (2015, arXiv:1502.01852, equation 10) with the fan out for convolutions, ones and zeros for
/// BatchNorms, and a uniform head within 1/√512 as `torch.nn.Linear` has it.
fn random(seed: u64) -> Result<BTreeMap<String, Tensor>, Error> {
    // The bits of the seed, whatever their sign.
    tch::manual_seed(seed.cast_signed());
    let mut state = BTreeMap::new();
    for (name, shape) in layout(1) {
        let sides: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        let float = (Kind::Float, Device::Cpu);
        let head_bound = 1.0 / (512f64).sqrt();
        let tensor = match name.rsplit('.').next() {
            Some("num_batches_tracked") => Tensor::f_zeros([0; 0], (Kind::Int64, Device::Cpu))?,
            _ if name.starts_with("fc.") => {
                Tensor::f_zeros(&sides, float)?.f_uniform_(-head_bound, head_bound)?
            }
            Some("weight") if sides.len() == 4 => {
                let fan_out = (shape[0] * shape[2] * shape[3]) as f64;
                Tensor::f_randn(&sides, float)?.f_mul_scalar((2.0 / fan_out).sqrt())?
            }
            Some("weight" | "running_var") => Tensor::f_ones(&sides, float)?,
            _ => Tensor::f_zeros(&sides, float)?,
        };
        state.insert(name, tensor);
    }
    Ok(state)
}

/// What a file of initial weights may lack.
const FILLABLE: Mismatch = Mismatch {
    counters: true,
    missing_head: true,
};

/// Replaces random weights with those of a file, which may lack the head and the counts.
fn fill(state: &mut BTreeMap<String, Tensor>, found: StateDict) -> Result<(), Error> {
    check_shapes(&found, &layout(1), &FILLABLE)?;
    check_values(&found)?;
    for (name, data) in &found {
        state.insert(name.clone(), tensor(data)?);
    }
    Ok(())
}

fn tensor(data: &weights::TensorData) -> Result<Tensor, Error> {
    let sides: Vec<i64> = data.shape.iter().map(|side| *side as i64).collect();
    if data.dtype == DType::I64 {
        return Ok(Tensor::f_from_data_size(&data.data, &sides, Kind::Int64)?);
    }
    Ok(Tensor::f_from_slice(&data.to_f32())?.f_view(sides.as_slice())?)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use fs_err as fs;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        imaging::InputSpec,
        model::{
            checkpoint::{FORMAT_VERSION, MANIFEST_FILE},
            description::ARCHITECTURE,
            weights::{TensorData, to_pth},
        },
    };

    /// A network of ones with this many outputs.
    fn ones(outputs: usize) -> StateDict {
        let ones = |(name, shape): (String, Vec<usize>)| {
            let data = vec![1; shape.iter().product()];
            let dtype = DType::U8;
            (name, TensorData { dtype, shape, data })
        };
        layout(outputs).into_iter().map(ones).collect()
    }

    fn write(path: &Path, state: &StateDict, description: Option<&Description>) {
        let entries = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let description = description.map(|description| description.to_json().unwrap());
        fs::write(path, to_pth(entries, description.as_deref())).unwrap();
    }

    fn description() -> Description {
        Description {
            format_version: FORMAT_VERSION,
            architecture: ARCHITECTURE.to_owned(),
            input: InputSpec {
                size: 96,
                ..InputSpec::default()
            },
            label: LabelScale {
                scale: 2.0,
                offset: 30.0,
            },
        }
    }

    fn check_file(path: &Path) -> Result<WeightsFile, Error> {
        check(path.to_str().unwrap(), "")
    }

    #[test]
    fn a_file_that_describes_itself_is_an_age_model() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.pth");
        write(&path, &ones(1), Some(&description()));
        assert_eq!(check_file(&path).unwrap().description, Some(description()));

        // The description is of another head.
        write(&path, &ones(1000), Some(&description()));
        let file = check_file(&path).unwrap();
        assert_eq!(file.description, None);
        for part in ["the last layer is random", "fc.weight [1000, 512]"] {
            assert!(file.source.contains(part), "{}", file.source);
        }

        let changes: [fn(&mut Description); 4] = [
            |description| description.format_version += 1,
            |description| description.architecture = "resnet50".to_owned(),
            |description| description.label.scale = 0.0,
            |description| description.input.size = 0,
        ];
        for change in changes {
            let mut unusable = description();
            change(&mut unusable);
            write(&path, &ones(1), Some(&unusable));
            assert_eq!(check_file(&path).unwrap().description, None);
        }
    }

    #[test]
    fn a_manifest_beside_a_file_describes_it_if_it_has_its_checksum() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("renamed.pth");
        write(&path, &ones(1), None);
        assert_eq!(check_file(&path).unwrap().description, None);

        let mut manifest = starter::manifest().clone();
        let place = directory.path().join(MANIFEST_FILE);
        fs::write(&place, serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(check_file(&path).unwrap().description, None);

        let digest = Sha256::digest(fs::read(&path).unwrap());
        let sha256 = digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        manifest.sha256 = BTreeMap::from([("model.safetensors".to_owned(), sha256)]);
        fs::write(&place, serde_json::to_vec(&manifest).unwrap()).unwrap();
        let found = check_file(&path).unwrap().description;
        assert_eq!(found, Some(Description::of(&manifest)));
    }

    #[test]
    fn the_starter_is_known_without_a_description() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("downloaded.safetensors");
        fs::write(&path, starter::files()[0].1).unwrap();
        let found = check_file(&path).unwrap().description;
        assert_eq!(found, Some(Description::of(starter::manifest())));
    }

    #[test]
    fn a_head_on_another_scale_predicts_years_once_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.pth");
        write(&path, &ones(1), Some(&description()));
        let init = Init::Path {
            path: path.to_str().unwrap().to_owned(),
            key: String::new(),
        };
        let sources = WeightSources {
            directories: Vec::new(),
            hub: HubOptions::new(directory.path().to_owned()),
        };
        let loaded = load(&init, 1, &sources).unwrap();
        // By hand: 1 · 2, and 1 · 2 + 30.
        assert_eq!(loaded.state["fc.weight"].double_value(&[0, 511]), 2.0);
        assert_eq!(loaded.state["fc.bias"].double_value(&[0]), 32.0);
        assert_eq!(
            loaded.state["conv1.weight"].double_value(&[0, 0, 0, 0]),
            1.0
        );
    }

    #[test]
    fn a_head_behind_a_dropout_is_replaced_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.pth");
        let mut state = ones(1);
        for name in ["weight", "bias"] {
            let tensor = state.remove(&format!("fc.{name}")).unwrap();
            state.insert(format!("fc.1.{name}"), tensor);
        }
        write(&path, &state, None);
        let source = check_file(&path).unwrap().source;
        assert!(
            source.contains("random") && source.contains("fc.1.weight [1, 512]"),
            "{source}"
        );
    }

    #[test]
    fn values_that_are_not_numbers_are_refused_in_what_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.pth");
        let nan = |shape: Vec<usize>| TensorData {
            dtype: DType::F32,
            data: f32::NAN.to_le_bytes().repeat(shape.iter().product()),
            shape,
        };
        let mut state = ones(1);
        state.insert("bn1.running_var".to_owned(), nan(vec![64]));
        write(&path, &state, None);
        let message = check_file(&path).unwrap_err().to_string();
        assert!(
            message.contains("tensor \"bn1.running_var\" has NaN at [0]"),
            "{message}"
        );

        // A head of 1000 classes is not used.
        let mut state = ones(1000);
        state.insert("fc.bias".to_owned(), nan(vec![1000]));
        write(&path, &state, None);
        check_file(&path).unwrap();
    }
}
