//! The results of a sweep as a table or JSON, best run first.

use serde_json::{Map, Value, json};

use crate::{
    cli::{
        args::short_names,
        commands::sweep::request::Run,
        context::Context,
        error::Error,
        output::json,
        report::{self, validation_sets},
        status_text::with_flags,
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
    let rows = ended
        .iter()
        .map(|(run, training)| row(run, training))
        .collect();
    let last = header.len();
    for line in validation_sets::table_lines(header, rows, last, marks(ended)) {
        output.line(&line)?;
    }
    for (run, training) in ended {
        if let Some(failure) = &training.failure {
            let message = with_flags(&failure.message);
            output.note(&format!("{}: {message} ({})", run.name, failure.reason));
        }
    }
    Ok(())
}

/// The succeeded run with the lowest validation loss; `None` if the losses are on different images.
pub(super) fn best<'a>(ended: &[(&Run, &'a Training)]) -> Option<&'a Training> {
    if marks(ended).is_some() {
        return None;
    }
    let (_, first) = ended.first()?;
    (first.state() == TrainingState::Succeeded).then_some(*first)
}

fn marks(ended: &[(&Run, &Training)]) -> Option<Vec<String>> {
    validation_sets::marks(ended.iter().map(|(_, training)| {
        let dataset = training.dataset.as_ref();
        dataset.map_or("", |dataset| dataset.val_digest.as_str())
    }))
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
    let duration = report::duration(training);
    cells.push(duration.map_or("-".to_owned(), |took| format!("{:.1}", took.as_secs_f64())));
    cells.push(report::state_name(training.state()).to_owned());
    cells
}
