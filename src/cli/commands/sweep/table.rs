//! The results of a sweep as a table or JSON, best run first.

use serde_json::{Map, Value, json};

use crate::{
    cli::{
        args::short_names,
        commands::sweep::request::Run,
        context::Context,
        error::Error,
        output::{json, table},
        report,
    },
    proto::v1::{Training, TrainingState},
};

/// Sorts by the best validation loss; a run without a finite loss is last.
pub(super) fn sort(ended: &mut [(&Run, &Training)]) {
    let loss = |training: &Training| {
        let best = training.best.as_ref();
        best.map_or(f64::NAN, |best| best.val_loss).abs()
    };
    ended.sort_by(|(_, left), (_, right)| loss(left).total_cmp(&loss(right)));
}

pub(super) fn print(ended: &[(&Run, &Training)], id: &str, context: &Context) -> Result<(), Error> {
    let output = &context.output;
    if output.is_json() {
        for (run, training) in ended {
            let fields: Map<String, Value> = run
                .fields
                .iter()
                .map(|assignment| {
                    let path = assignment.field().path().to_owned();
                    (path, assignment.json().clone())
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
        .filter(|(_, training)| training.state() == TrainingState::Succeeded)
    {
        output.note(&format!(
            "Serve the best with `visage models promote {}`.",
            short_names::version_id(&best.model_version)
        ));
    }
    Ok(())
}

fn row(run: &Run, training: &Training) -> Vec<String> {
    let mut cells = vec![short_names::training_id(&run.name).to_owned()];
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

/// Duration from the first start of the process to the end.
fn seconds(training: &Training) -> Option<f64> {
    let (start, end) = (training.start_time?, training.end_time?);
    let nanoseconds = f64::from(end.nanos) - f64::from(start.nanos);
    Some((end.seconds - start.seconds) as f64 + nanoseconds / 1e9)
}
