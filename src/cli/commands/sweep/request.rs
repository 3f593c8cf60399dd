//! The planned runs of a sweep with their StartTraining requests.

use uuid::Uuid;

use crate::{
    cli::{
        args::{dataset_args::dataset_spec, short_names, spec_field::Assignment},
        commands::sweep::{
            Args,
            plan::{self, Axis, Range},
        },
        error::Error,
    },
    names,
    proto::v1::{Promote, StartTrainingRequest, TrainingSpec},
};

/// More runs are refused, because a grid grows fast.
const MAX_RUNS: usize = 1000;
/// Maximum length of a training's display name in characters.
const MAX_DISPLAY_NAME: usize = 256;
/// Label with the id of the sweep.
pub(super) const LABEL: &str = "sweep";

/// A training of the sweep.
#[derive(Debug)]
pub(super) struct Run {
    /// `trainings/{id}`.
    pub(super) name: String,
    /// The varied fields with the values of this run.
    pub(super) fields: Vec<Assignment>,
    pub(super) request: StartTrainingRequest,
}

impl Run {
    /// The varied fields as text, such as `batch_size=16 seed=1`.
    pub(super) fn description(&self) -> String {
        describe(&self.fields)
    }
}

fn describe(fields: &[Assignment]) -> String {
    let parts: Vec<String> = fields
        .iter()
        .map(|assignment| format!("{}={}", assignment.field().path(), assignment.text()))
        .collect();
    parts.join(" ")
}

/// The runs in the order in which they start.
pub(super) fn plan_runs(args: Args, id: &str) -> Result<Vec<Run>, Error> {
    check_fields(&args)?;
    let count = match args.random {
        Some(count) => Some(count as usize),
        None => plan::grid_size(&args.axes),
    };
    let Some(count) = count.filter(|count| *count <= MAX_RUNS) else {
        return Err(Error::Usage(format!(
            "a sweep has at most {MAX_RUNS} runs; remove values, or draw some with --random"
        )));
    };
    if !names::is_id(&format!("{id}-{count}")) {
        return Err(Error::Usage(format!(
            "the sweep's id must consist of a-z, 0-9 and -, start with a letter and have at most 63 characters including the run's number, got {id:?}"
        )));
    }
    let combinations = match args.random {
        Some(_) => {
            plan::random(&args.axes, &args.ranges, count, args.seed).map_err(Error::Usage)?
        }
        None => plan::grid(&args.axes),
    };
    let mut common = TrainingSpec {
        dataset: Some(dataset_spec(args.dataset.required()?, &args.reading)?),
        promote: Promote::Never.into(),
        create_version: (!args.keep_versions).then_some(false),
        ..TrainingSpec::default()
    };
    for assignment in &args.set {
        assignment.apply(&mut common);
    }
    let run = |(number, fields): (usize, Vec<Assignment>)| {
        let mut spec = common.clone();
        for assignment in &fields {
            assignment.apply(&mut spec);
        }
        let training_id = format!("{id}-{number}");
        Run {
            name: short_names::training(&training_id),
            request: StartTrainingRequest {
                spec: Some(spec),
                request_id: Uuid::new_v4().to_string(),
                training_id,
                display_name: describe(&fields).chars().take(MAX_DISPLAY_NAME).collect(),
                labels: [(LABEL.to_owned(), id.to_owned())].into(),
                ..StartTrainingRequest::default()
            },
            fields,
        }
    };
    Ok((1..).zip(combinations).map(run).collect())
}

fn check_fields(args: &Args) -> Result<(), Error> {
    if args.axes.is_empty() && args.ranges.is_empty() {
        return Err(Error::Usage(
            "no field varies; set --grid, or --random with --range".to_owned(),
        ));
    }
    let varied = args
        .axes
        .iter()
        .map(Axis::field)
        .chain(args.ranges.iter().map(Range::field));
    let fixed = args.set.iter().map(Assignment::field);
    let mut paths: Vec<&str> = varied.chain(fixed).map(|field| field.path()).collect();
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(Error::Usage(format!("`{}` is set twice", twice[0]))),
        None => Ok(()),
    }
}
