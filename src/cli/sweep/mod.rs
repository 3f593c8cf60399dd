//! `visage sweep`: many trainings that differ in a few fields, one after the other through the server's queue, and a table of how they did.
//!
//! - this file: arguments, the plan, what is said at the end.
//! - `plan`: the combinations, by grid or at random.
//! - `runs`: starting and following them.

mod plan;
mod runs;

use std::{path::PathBuf, pin::pin};

use serde_json::json;
use tonic::Status;
use uuid::Uuid;

use crate::{
    names as resource_names,
    proto::v1::{Promote, StartTrainingRequest, Training, TrainingSpec},
};

use self::{
    plan::{Axis, Range},
    runs::{Run, Runs},
};
use super::{
    Context, Error, Outcome, dataset_spec, fields::Assignment, json, names, observe::ctrl_c,
    reading::ReadingArgs, report, table,
};

/// Most runs of a sweep; a grid grows faster than one thinks.
const MAX_RUNS: usize = 1000;
/// Most characters of a training's display name.
const MAX_DISPLAY_NAME: usize = 256;
/// The label that says which sweep a training belongs to.
const LABEL: &str = "sweep";

const EXAMPLES: &str = "\
Examples:
  visage sweep --dataset faces/ --grid optimizer.learning_rate=1e-4,3e-4 --grid batch_size=16,32 --set max_epochs=3
  visage sweep --dataset faces/ --random 20 --range optimizer.learning_rate=1e-5..1e-2:log --grid 'trainable=[\"layer4\",\"fc\"],ALL'
  visage sweep --dataset faces/ --grid batch_size=16,32 --resume sweep-1a2b3c4d

Fields have the names of TrainingSpec in the API. No run becomes live unless `--set promote=...` says so.
Ctrl-C leaves what was started to the server; the same command with --resume goes on. The exit code is 0 only when all
runs succeeded.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// `datasets/ID`, or a directory of images whose names begin with the age, or a CSV/TSV file with the columns `path` and `age`; on the server's disk
    #[arg(long, value_name = "PATH")]
    dataset: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Values of a field; several fields are combined, each value with each
    #[arg(long = "grid", value_name = "FIELD=VALUE,...", value_parser = Axis::parse)]
    axes: Vec<Axis>,
    /// Draw this many combinations at random instead of trying all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    random: Option<u32>,
    /// Where a number is drawn from; `:log` spreads the draws evenly over the orders of magnitude
    #[arg(long = "range", value_name = "FIELD=LOW..HIGH[:log]", value_parser = Range::parse, requires = "random")]
    ranges: Vec<Range>,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// A field that is the same in all runs, such as `max_epochs=3`; may be given several times
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = Assignment::parse)]
    set: Vec<Assignment>,
    /// Most runs that are in the server's queue or running at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    queued: u32,
    /// The sweep's id; its trainings are ID-1, ID-2 and so on [default: chosen at random]
    #[arg(long, value_name = "ID", conflicts_with = "resume")]
    id: Option<String>,
    /// Go on with this sweep: trainings that exist are not started again
    #[arg(long, value_name = "ID")]
    resume: Option<String>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let is_resumed = args.resume.is_some();
    let id = match args.resume.clone().or_else(|| args.id.clone()) {
        Some(id) => id,
        None => format!("sweep-{:08x}", Uuid::new_v4().as_fields().0),
    };
    let planned = planned(&args, &id)?;
    let client = context.connect().await?;
    let count = planned.len();
    let mut runs = Runs::new(planned, is_resumed, args.queued as usize);
    if is_resumed && !runs.any_exists(&client, context).await? {
        return Err(Error::Refused(Box::new(Status::not_found(format!(
            "there is no sweep {id:?}: none of trainings/{id}-1 to trainings/{id}-{count} exists; begin it with --id {id}"
        )))));
    }
    context.output.note(&format!(
        "Sweep {id}: {count} runs, trainings/{id}-1 to trainings/{id}-{count}. If this ends early, go on with the same command and `--resume {id}`."
    ));
    let is_interrupted = {
        let mut work = pin!(runs.finish(&client, context));
        tokio::select! {
            done = &mut work => {
                done?;
                false
            }
            () = ctrl_c() => true,
        }
    };
    context.output.clear();
    if is_interrupted {
        context.output.complain(&farewell(&runs, &id));
        return Ok(Outcome::Interrupted);
    }
    let mut ended: Vec<(&Run, &Training)> = runs.ended().collect();
    // A run without a complete epoch, or whose loss is no number, comes last.
    ended.sort_by(|(_, left), (_, right)| loss(left).total_cmp(&loss(right)));
    show(&ended, &id, context)?;
    let all_succeeded = ended.iter().all(|(_, training)| has_succeeded(training));
    Ok(match all_succeeded {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}

/// The runs in the order in which they are started.
fn planned(args: &Args, id: &str) -> Result<Vec<Run>, Error> {
    let varied = args
        .axes
        .iter()
        .map(Axis::field)
        .chain(args.ranges.iter().map(Range::field));
    let fixed = args.set.iter().map(Assignment::field);
    let mut paths: Vec<&str> = varied.chain(fixed).map(|field| field.path()).collect();
    paths.sort_unstable();
    if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage(format!("`{}` is given twice", twice[0])));
    }
    if args.axes.is_empty() && args.ranges.is_empty() {
        return Err(Error::Usage(
            "nothing varies: give --grid, or --random with --range".to_owned(),
        ));
    }
    let count = match args.random {
        Some(count) => Some(count as usize),
        None => plan::grid_size(&args.axes),
    };
    let Some(count) = count.filter(|count| *count <= MAX_RUNS) else {
        return Err(Error::Usage(format!(
            "that would be more than {MAX_RUNS} runs; leave values out, or draw some with --random"
        )));
    };
    if !resource_names::is_id(&format!("{id}-{count}")) {
        return Err(Error::Usage(format!(
            "{id:?} is no id for a sweep: a-z, 0-9 and -, beginning with a letter, and at most 63 with the run's number"
        )));
    }
    let combinations = match args.random {
        Some(_) => {
            plan::random(&args.axes, &args.ranges, count, args.seed).map_err(Error::Usage)?
        }
        None => plan::grid(&args.axes),
    };
    let mut common = TrainingSpec {
        dataset: Some(dataset_spec(args.dataset.clone(), &args.reading)?),
        promote: Promote::Never.into(),
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
            name: names::training(&training_id),
            request: StartTrainingRequest {
                spec: Some(spec),
                request_id: Uuid::new_v4().to_string(),
                training_id,
                display_name: described(&fields).chars().take(MAX_DISPLAY_NAME).collect(),
                labels: [(LABEL.to_owned(), id.to_owned())].into(),
                ..StartTrainingRequest::default()
            },
            fields,
        }
    };
    Ok((1..).zip(combinations).map(run).collect())
}

/// The fields that vary and their values, as words.
fn described(fields: &[Assignment]) -> String {
    let parts: Vec<String> = fields
        .iter()
        .map(|assignment| format!("{}={}", assignment.field().path(), assignment.text()))
        .collect();
    parts.join(" ")
}

fn loss(training: &Training) -> f64 {
    let best = training.best.as_ref();
    best.map_or(f64::NAN, |best| best.val_loss).abs()
}

fn has_succeeded(training: &Training) -> bool {
    training.state() == crate::proto::v1::TrainingState::Succeeded
}

/// What Ctrl-C leaves behind.
fn farewell(runs: &Runs, id: &str) -> String {
    let left: Vec<&str> = runs.started().collect();
    let how = format!("Go on with the same command and `--resume {id}`.");
    match left.as_slice() {
        [] => format!("No run was left behind. {how}"),
        [running] => format!(
            "No longer following; {running} goes on. {how} End it with `visage trainings stop {}`.",
            names::training_id(running)
        ),
        [running, waiting @ ..] => format!(
            "No longer following; {running} goes on, and after it what is queued: {}. {how} End one with `visage trainings cancel ID`.",
            waiting.join(", ")
        ),
    }
}

fn show(ended: &[(&Run, &Training)], id: &str, context: &Context) -> Result<(), Error> {
    let output = &context.output;
    if output.is_json() {
        for (run, training) in ended {
            let fields: serde_json::Map<String, serde_json::Value> = run
                .fields
                .iter()
                .map(|assignment| {
                    (
                        assignment.field().path().to_owned(),
                        assignment.json().clone(),
                    )
                })
                .collect();
            let training = json::value("Training", *training);
            output.object(&json!({ "sweep": id, "fields": fields, "training": training }))?;
        }
        return Ok(());
    }
    let varied = ended
        .first()
        .map(|(run, _)| run.fields.as_slice())
        .unwrap_or_default();
    let mut header = vec!["TRAINING"];
    header.extend(varied.iter().map(|assignment| assignment.field().path()));
    header.extend(["BEST EPOCH", "VAL LOSS", "RMSE", "MAE", "SECONDS", "STATE"]);
    let rows: Vec<Vec<String>> = ended
        .iter()
        .map(|(run, training)| row(run, training))
        .collect();
    table::print(output, &header, &rows)?;
    for (run, training) in ended {
        if let Some(failure) = &training.failure {
            output.note(&format!(
                "{}: {} ({})",
                run.name, failure.message, failure.reason
            ));
        }
    }
    if let Some((_, best)) = ended
        .first()
        .filter(|(_, training)| has_succeeded(training))
    {
        output.note(&format!(
            "Serve the best with `visage models alias set live {}`.",
            names::version_id(&best.model_version)
        ));
    }
    Ok(())
}

fn row(run: &Run, training: &Training) -> Vec<String> {
    let mut cells = vec![names::training_id(&run.name).to_owned()];
    cells.extend(
        run.fields
            .iter()
            .map(|assignment| assignment.text().to_owned()),
    );
    match &training.best {
        Some(best) => cells.extend([
            best.epoch.to_string(),
            format!("{:.4}", best.val_loss),
            format!("{:.2}", best.val_rmse),
            format!("{:.2}", best.val_mae),
        ]),
        None => cells.extend(["-"; 4].map(str::to_owned)),
    }
    cells.push(seconds(training).map_or("-".to_owned(), |seconds| format!("{seconds:.1}")));
    cells.push(report::state_name(training.state()).to_owned());
    cells
}

/// From the first start of its process to its end.
fn seconds(training: &Training) -> Option<f64> {
    let (start, end) = (training.start_time?, training.end_time?);
    let nanoseconds = f64::from(end.nanos) - f64::from(start.nanos);
    Some((end.seconds - start.seconds) as f64 + nanoseconds / 1e9)
}
