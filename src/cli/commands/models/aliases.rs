//! `visage models promote`, `rollback`, `alias set` and `alias delete`: moves of aliases.

use tonic::{Code, Status};

use crate::{
    cli::{
        args::{model_arg::ModelArg, short_names},
        client::{Client, request},
        commands::models::{args::AliasCommand, missing_version},
        context::{Context, Outcome},
        error::Error,
        output::json,
    },
    names::{LIVE, PREVIOUS},
    proto::v1::{DeleteAliasRequest, GetModelVersionRequest, SetAliasRequest},
};

/// A move to request.
struct Move<'a> {
    model: &'a str,
    alias: &'a str,
    /// Number, alias or full name of the version.
    version: &'a str,
    expected: Option<u64>,
}

pub(super) async fn run(
    command: AliasCommand,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    match command {
        AliasCommand::Set {
            alias,
            version,
            expected,
            model,
        } => {
            let wanted = Move {
                model: &model.model,
                alias: &alias,
                version: &version,
                expected,
            };
            set(&wanted, client, context).await
        }
        AliasCommand::Delete {
            alias,
            force,
            model,
        } => delete(&alias, force, &model, client, context).await,
    }
}

pub(super) async fn promote(
    version: &str,
    model: &ModelArg,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    let wanted = Move {
        model: &model.model,
        alias: LIVE,
        version,
        expected: None,
    };
    set(&wanted, client, context).await
}

/// Swaps `live` and `previous`.
pub(super) async fn roll_back(
    model: &ModelArg,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    let live = version_of(&model.model, LIVE, client).await?;
    let previous = version_of(&model.model, PREVIOUS, client).await?;
    let reason = match previous {
        None => "`previous` is not set".to_owned(),
        Some(number) if live == previous => {
            format!("`live` and `previous` are both version {number}")
        }
        Some(number) => {
            let wanted = Move {
                model: &model.model,
                alias: LIVE,
                version: &number.to_string(),
                // Another client may move `live` between the calls.
                expected: Some(live.unwrap_or(0)),
            };
            return set(&wanted, client, context).await;
        }
    };
    Err(Error::Refused(Box::new(Status::failed_precondition(
        format!(
            "failed to roll back: {reason}; `visage models history` lists earlier versions, \
             `visage models promote N` makes one live"
        ),
    ))))
}

/// Moves an alias and prints the move on one line.
async fn set(wanted: &Move<'_>, client: &Client, context: &Context) -> Result<Outcome, Error> {
    let alias = wanted.alias;
    let name = short_names::version(wanted.model, wanted.version);
    // A full name may be of another model.
    let model = short_names::model_of(&name).to_owned();
    let before = version_of(&model, alias, client).await?;
    let message = SetAliasRequest {
        name,
        alias: alias.to_owned(),
        expected_version: wanted.expected,
    };
    let response = client.models().set_alias(request(message)).await;
    let response = client.message(response)?;
    let version = response.version.as_ref().ok_or_else(missing_version)?;
    // Servers of earlier releases do not report the version before the move.
    let from = match response.from_version {
        0 => before,
        number => Some(number),
    };
    let previous = match alias {
        LIVE => version_of(&model, PREVIOUS, client).await?,
        _ => None,
    };
    let output = &context.output;
    if output.is_json() {
        let mut object = json::value("ModelVersion", version);
        object["alias"] = alias.into();
        object["from_version"] = from.unwrap_or(0).into();
        object["previous_version"] = previous.unwrap_or(0).into();
        output.object(&object)?;
    } else {
        output.line(&move_text(alias, from, version.version, previous))?;
    }
    Ok(Outcome::Done)
}

/// `live: version 2 -> 1 (previous: 2)`.
fn move_text(alias: &str, from: Option<u64>, to: u64, previous: Option<u64>) -> String {
    let moved = match from {
        Some(from) if from == to => format!("{alias}: version {to}, unchanged"),
        Some(from) => format!("{alias}: version {from} -> {to}"),
        None => format!("{alias}: version {to}"),
    };
    match previous {
        Some(number) => format!("{moved} (previous: {number})"),
        None => moved,
    }
}

async fn delete(
    alias: &str,
    force: bool,
    model: &ModelArg,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    if alias == LIVE && !force {
        return Err(Error::Usage(
            "without `live`, all predictions that name no version fail; add --force to remove it"
                .to_owned(),
        ));
    }
    let before = version_of(&model.model, alias, client).await?;
    let message = DeleteAliasRequest {
        parent: short_names::model(&model.model),
        alias: alias.to_owned(),
    };
    client.message(client.models().delete_alias(request(message)).await)?;
    let number = before.map(|number| number.to_string()).unwrap_or_default();
    context.output.note(&format!(
        "Removed the alias {alias} of version {number}; \
         `visage models alias set {alias} {number}` restores it."
    ));
    Ok(Outcome::Done)
}

/// Number of the version that an alias points to; `None` if it is not set.
pub(super) async fn version_of(
    model: &str,
    alias: &str,
    client: &Client,
) -> Result<Option<u64>, Error> {
    let name = short_names::version(model, alias);
    let message = GetModelVersionRequest { name };
    match client.models().get_model_version(request(message)).await {
        Ok(response) => Ok(response.into_inner().version.map(|found| found.version)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(client.failure(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_one_line() {
        let cases = [
            (
                (LIVE, Some(2), 1, Some(2)),
                "live: version 2 -> 1 (previous: 2)",
            ),
            ((LIVE, None, 1, None), "live: version 1"),
            (
                (LIVE, Some(1), 1, Some(2)),
                "live: version 1, unchanged (previous: 2)",
            ),
            (("canary", Some(3), 4, None), "canary: version 3 -> 4"),
        ];
        for ((alias, from, to, previous), expected) in cases {
            assert_eq!(move_text(alias, from, to, previous), expected);
        }
    }
}
