//! The parameters of a prediction in the query of its URL.

use tonic::Status;

use crate::{
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::validation::Violation,
    services::status,
};

/// The parameters, as the fields of `PredictRequest`.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    pub(super) detect_faces: bool,
    pub(super) version: VersionName,
    pub(super) interval_level: Option<f64>,
}

impl Query {
    /// Parses `name=value&...`; the last value of a parameter counts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with a violation for each unknown parameter and each invalid value.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let mut query = Query {
            detect_faces: false,
            version: VersionName::alias(DEFAULT_MODEL, LIVE),
            interval_level: None,
        };
        let mut violations = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if let Err(description) = query.set(&name, &value) {
                violations.push(Violation {
                    field: name.into_owned(),
                    description,
                });
            }
        }
        if violations.is_empty() {
            return Ok(query);
        }
        Err(status::violations(&violations))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "detect_faces" => self.detect_faces = boolean(value)?,
            "version" => self.version = version(value)?,
            "interval_level" => {
                let level = value.parse();
                // The model checks the range.
                self.interval_level = Some(
                    level.map_err(|_| format!("must be a number such as 0.9, got {value:?}"))?,
                );
            }
            _ => {
                return Err(
                    "is not a parameter; use detect_faces, version or interval_level".to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// A parameter without a value is true, as in `?detect_faces`.
fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("must be true or false, got {value:?}")),
    }
}

/// A number or an alias of the default model, or a full name.
fn version(value: &str) -> Result<VersionName, String> {
    let name = match value.contains('/') {
        true => value.to_owned(),
        false => format!("models/{DEFAULT_MODEL}/versions/{value}"),
    };
    VersionName::parse(&name).map_err(|_| {
        format!(
            "must be a number, an alias or models/{{model}}/versions/{{n or alias}}, got {value:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::names::VersionRef;

    #[test]
    fn parameters_have_the_defaults_of_predict() {
        let query = Query::parse("").unwrap();
        assert_eq!(query.version, VersionName::alias("age", "live"));
        assert_eq!((query.detect_faces, query.interval_level), (false, None));
    }

    #[test]
    fn a_version_is_a_number_an_alias_or_a_full_name() {
        for (text, model, version) in [
            ("version=2", "age", VersionRef::Number(2)),
            (
                "version=canary",
                "age",
                VersionRef::Alias("canary".to_owned()),
            ),
            (
                "version=models/faces/versions/3",
                "faces",
                VersionRef::Number(3),
            ),
            (
                "version=models%2Ffaces%2Fversions%2F3",
                "faces",
                VersionRef::Number(3),
            ),
        ] {
            let query = Query::parse(text).unwrap();
            let model = model.to_owned();
            assert_eq!(query.version, VersionName { model, version }, "{text}");
        }
    }

    #[test]
    fn a_flag_needs_no_value() {
        for (text, expected) in [
            ("detect_faces", true),
            ("detect_faces=true&interval_level=0.8", true),
            ("detect_faces=1", true),
            ("detect_faces=true&detect_faces=false", false),
        ] {
            assert_eq!(Query::parse(text).unwrap().detect_faces, expected, "{text}");
        }
        let level = Query::parse("interval_level=0.95").unwrap().interval_level;
        assert_eq!(level, Some(0.95));
    }

    #[test]
    fn all_wrong_parameters_are_reported() {
        let refused = Query::parse("faces=1&detect_faces=yes&version=-1&interval_level=high");
        let status = refused.unwrap_err();
        let details = status.get_error_details();
        let violations = details.bad_request().unwrap().field_violations.clone();
        let found: Vec<_> = violations
            .iter()
            .map(|one| (one.field.as_str(), one.description.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "faces",
                    "is not a parameter; use detect_faces, version or interval_level"
                ),
                ("detect_faces", "must be true or false, got \"yes\""),
                (
                    "version",
                    "must be a number, an alias or models/{model}/versions/{n or alias}, got \"-1\""
                ),
                (
                    "interval_level",
                    "must be a number such as 0.9, got \"high\""
                ),
            ]
        );
    }
}
