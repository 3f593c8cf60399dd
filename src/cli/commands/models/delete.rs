//! `visage models delete`: a version and its files.

use tonic::{Code, Status};

use crate::{
    cli::{
        args::short_names,
        client::{Client, request},
        commands::models::aliases::version_of,
        context::Context,
        error::Error,
        output::text::size_text,
        status_text::reason,
    },
    names::{LIVE, PREVIOUS},
    proto::v1::{DeleteModelVersionRequest, GetModelVersionRequest},
};

/// Deletes a version and prints the disk space that became free.
pub(super) async fn run(
    version: &str,
    model: &str,
    client: &Client,
    context: &Context,
) -> Result<(), Error> {
    let name = short_names::version(model, version);
    check_number(&name, client).await?;
    let message = DeleteModelVersionRequest { name: name.clone() };
    let deleted = client.models().delete_model_version(request(message)).await;
    let freed = match deleted {
        Ok(deleted) => deleted.into_inner().freed_bytes,
        Err(status) => return Err(refusal(&name, status, client).await),
    };
    let output = &context.output;
    if output.is_json() {
        return output.object(&serde_json::json!({ "name": name, "freed_bytes": freed }));
    }
    output.note(&format!("Deleted {name}; {} freed.", size_text(freed)));
    Ok(())
}

/// Refuses an alias, whose version is in use.
async fn check_number(name: &str, client: &Client) -> Result<(), Error> {
    let id = short_names::version_id(name);
    if id.parse::<u64>().is_ok() {
        return Ok(());
    }
    let number = version_of(short_names::model_of(name), id, client).await?;
    Err(match number {
        Some(number) => Error::Usage(format!(
            "VERSION must be a number, got the alias {id} of version {number}, which is in use\n  {}",
            remedy(id)
        )),
        None => Error::Refused(Box::new(Status::not_found(format!(
            "model version {name} does not exist"
        )))),
    })
}

/// The refusal of a version with aliases, with the commands that move or remove them.
async fn refusal(name: &str, status: Status, client: &Client) -> Error {
    if reason(&status).as_deref() != Some("VERSION_IN_USE") {
        return client.failure(status);
    }
    let message = GetModelVersionRequest {
        name: name.to_owned(),
    };
    let found = client.models().get_model_version(request(message)).await;
    let version = found.ok().and_then(|found| found.into_inner().version);
    let aliases = version.map(|version| version.aliases).unwrap_or_default();
    if aliases.is_empty() {
        // A training starts from it.
        return client.failure(status);
    }
    Error::Refused(Box::new(Status::new(
        Code::FailedPrecondition,
        in_use_text(name, &aliases),
    )))
}

fn in_use_text(name: &str, aliases: &[String]) -> String {
    let plural = if aliases.len() == 1 { "" } else { "es" };
    let remedies: Vec<String> = aliases.iter().map(|alias| remedy(alias)).collect();
    format!(
        "{name} is in use by the alias{plural} {}\n  {}",
        aliases.join(", "),
        remedies.join("\n  ")
    )
}

/// The commands that free the version of an alias.
fn remedy(alias: &str) -> String {
    match alias {
        LIVE => "`visage models promote N` makes another version live".to_owned(),
        PREVIOUS => {
            "`visage models alias delete previous` removes the alias, and with it the target of \
             `visage models rollback`"
                .to_owned()
        }
        alias => format!(
            "`visage models alias set {alias} N` moves {alias} to another version, \
             `visage models alias delete {alias}` removes it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_use_names_the_command_for_each_alias() {
        let aliases = [LIVE, "canary"].map(str::to_owned);
        assert_eq!(
            in_use_text("models/age/versions/3", &aliases),
            "models/age/versions/3 is in use by the aliases live, canary\n  \
             `visage models promote N` makes another version live\n  \
             `visage models alias set canary N` moves canary to another version, \
             `visage models alias delete canary` removes it"
        );
        assert!(remedy(PREVIOUS).starts_with("`visage models alias delete previous`"));
    }
}
