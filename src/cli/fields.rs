//! Fields of `TrainingSpec` by their names in the API, such as `optimizer.learning_rate`, and values for them as people type them.
//!
//! Everything comes from the descriptors, so that a field that the API gets tomorrow can be set without a change here.

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use serde::de::DeserializeSeed as _;
use serde_json::Value as Json;

use crate::{config::edit_distance, proto::v1::TrainingSpec};

use super::json;

/// Most names that are proposed for a wrong one.
const MAX_PROPOSALS: usize = 3;

/// A field, which exists.
#[derive(Clone, Debug)]
pub(super) struct Field {
    path: String,
    /// From the spec's field to the one that is meant.
    steps: Vec<FieldDescriptor>,
    last: FieldDescriptor,
}

impl Field {
    /// Finds the field of this name.
    ///
    /// # Errors
    /// A name that no field has; the sentence proposes near ones.
    pub(super) fn parse(path: &str) -> Result<Self, String> {
        let unknown = || format!("TrainingSpec has no field `{path}`; {}", proposals(path));
        let (outer, name) = match path.rsplit_once('.') {
            Some((outer, name)) => (Some(outer), name),
            None => (None, path),
        };
        let mut message = json::descriptor("TrainingSpec");
        let mut steps = Vec::new();
        for step in outer.iter().flat_map(|outer| outer.split('.')) {
            let field = message.get_field_by_name(step).ok_or_else(unknown)?;
            message = inner_message(&field).ok_or_else(unknown)?;
            steps.push(field);
        }
        Ok(Field {
            path: path.to_owned(),
            steps,
            last: message.get_field_by_name(name).ok_or_else(unknown)?,
        })
    }

    /// Its name in the API.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it takes whole numbers only; `None` when it takes no number.
    pub(super) fn is_integer(&self) -> Option<bool> {
        if self.last.is_list() {
            return None;
        }
        match self.last.kind() {
            Kind::Double | Kind::Float => Some(false),
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64 => Some(true),
            Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => None,
        }
    }

    /// A value for the field, from text.
    ///
    /// # Errors
    /// Text that the field's type does not allow.
    pub(super) fn assign(&self, text: &str) -> Result<Assignment, String> {
        let refuse = |cause: &str| {
            let cause = match cause {
                "" => String::new(),
                cause => format!(" ({cause})"),
            };
            format!(
                "`{}` takes {}, not `{text}`{cause}",
                self.path,
                taken(&self.last)
            )
        };
        let json = to_json(&self.last, text).ok_or_else(|| refuse(""))?;
        let object = Json::Object(
            [(self.last.name().to_owned(), json.clone())]
                .into_iter()
                .collect(),
        );
        let holder = self
            .last
            .parent_message()
            .clone()
            .deserialize(object)
            .map_err(|error| refuse(&error.to_string()))?;
        Ok(Assignment {
            value: holder.get_field(&self.last).into_owned(),
            field: self.clone(),
            text: text.to_owned(),
            json,
        })
    }
}

/// A field and a value of its type.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    field: Field,
    text: String,
    json: Json,
    value: Value,
}

impl Assignment {
    /// Reads `FIELD=VALUE`.
    ///
    /// # Errors
    /// Another form, an unknown field, or a value that it does not take.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = split(text)?;
        Field::parse(path)?.assign(value)
    }

    /// The field.
    pub(super) fn field(&self) -> &Field {
        &self.field
    }

    /// The value as it was typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The value as JSON.
    pub(super) fn json(&self) -> &Json {
        &self.json
    }

    /// Gives the field of this spec the value.
    pub(super) fn apply(&self, spec: &mut TrainingSpec) {
        let mut dynamic = DynamicMessage::decode(
            json::descriptor("TrainingSpec"),
            spec.encode_to_vec().as_slice(),
        )
        .expect("a spec decodes by its own descriptor");
        let mut message = &mut dynamic;
        for step in &self.field.steps {
            let Value::Message(inner) = message.get_field_mut(step) else {
                unreachable!("{} was found to be a message", step.full_name());
            };
            message = inner;
        }
        message.set_field(&self.field.last, self.value.clone());
        *spec = TrainingSpec::decode(dynamic.encode_to_vec().as_slice())
            .expect("a spec is decoded from its own descriptor");
    }
}

/// Splits `FIELD=VALUE`.
///
/// # Errors
/// Another form.
pub(super) fn split(text: &str) -> Result<(&str, &str), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.trim(), value.trim())),
        _ => Err("expected FIELD=VALUE, such as `batch_size=16`".to_owned()),
    }
}

/// The message that the field holds, unless it is one of Google's, which have values of their own, or there are several.
fn inner_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let Kind::Message(message) = field.kind() else {
        return None;
    };
    let is_single = !field.is_list();
    Some(message).filter(|message| is_single && !is_googles(message))
}

fn is_googles(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// The value in protobuf's JSON form; `None` for what no value of the type is written like.
fn to_json(field: &FieldDescriptor, text: &str) -> Option<Json> {
    if !field.is_list() {
        return item_to_json(&field.kind(), text);
    }
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    text.split(',')
        .map(|item| item_to_json(&field.kind(), item.trim()))
        .collect()
}

fn item_to_json(kind: &Kind, text: &str) -> Option<Json> {
    match kind {
        Kind::Double
        | Kind::Float
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64 => text.parse().ok().map(Json::Number),
        Kind::Bool => text.parse().ok().map(Json::Bool),
        Kind::String | Kind::Bytes => Some(Json::String(text.to_owned())),
        Kind::Enum(choices) => {
            let wanted = text.to_ascii_uppercase().replace('-', "_");
            let prefix = prefix(choices);
            let chosen = choices.values().find(|value| {
                let name = value.name();
                name == wanted || name.strip_prefix(&prefix) == Some(wanted.as_str())
            })?;
            Some(Json::String(chosen.name().to_owned()))
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => {
            let duration = humantime::parse_duration(text).ok()?;
            let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
            Some(Json::String(format!("{seconds}.{nanoseconds:09}s")))
        }
        Kind::Message(_) => serde_json::from_str(text).ok(),
    }
}

/// What the field takes, in words.
fn taken(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::Int32
        | Kind::Int64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Sfixed32
        | Kind::Sfixed64 => "an integer".to_owned(),
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
            "an integer of 0 or more".to_owned()
        }
        Kind::Bool => "true or false".to_owned(),
        Kind::String | Kind::Bytes => "text".to_owned(),
        Kind::Enum(choices) => {
            let prefix = prefix(&choices);
            let names: Vec<String> = choices
                .values()
                .filter(|value| value.number() != 0)
                .map(|value| value.name().trim_start_matches(&prefix).to_owned())
                .collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(message) if is_googles(&message) => "a duration such as 90s or 2h".to_owned(),
        Kind::Message(message) => {
            let names: Vec<String> = message
                .fields()
                .map(|inner| inner.name().to_owned())
                .collect();
            format!(
                "a JSON object; or name one of its fields ({})",
                names.join(", ")
            )
        }
    };
    match field.is_list() {
        true => format!("a list, separated by commas or as a JSON array, of {one}"),
        false => one,
    }
}

/// What the names of an enumeration's values begin with: what stands before UNSPECIFIED in that of 0.
fn prefix(choices: &EnumDescriptor) -> String {
    let zero = choices.default_value();
    zero.name().trim_end_matches("UNSPECIFIED").to_owned()
}

/// The fields whose names are nearest to a wrong one, or all of them, as words.
fn proposals(wrong: &str) -> String {
    let mut paths = Vec::new();
    collect_paths(&json::descriptor("TrainingSpec"), "", &mut paths);
    let last_of = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let wrong_last = last_of(wrong);
    let distance = |path: &String| {
        let last = last_of(path);
        if last.starts_with(&wrong_last) {
            return 0;
        }
        edit_distance(wrong, path).min(edit_distance(&wrong_last, &last))
    };
    paths.sort_by_key(distance);
    let best = paths.first().map(distance).unwrap_or_default();
    if best > wrong_last.chars().count() / 2 {
        // Nothing is near, so all are told.
        paths.sort();
        return format!("its fields are {}", paths.join(", "));
    }
    let near: Vec<String> = paths
        .iter()
        .take(MAX_PROPOSALS)
        .filter(|path| distance(path) <= best + 1)
        .map(|path| format!("`{path}`"))
        .collect();
    format!("did you mean {}?", near.join(" or "))
}

/// The names of all fields that hold a value.
fn collect_paths(message: &MessageDescriptor, prefix: &str, paths: &mut Vec<String>) {
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        match inner_message(&field) {
            Some(inner) => collect_paths(&inner, &format!("{path}."), paths),
            None => paths.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{FeatureCache, InitKind, Promote};

    fn set(spec: &mut TrainingSpec, text: &str) {
        Assignment::parse(text).unwrap().apply(spec);
    }

    fn error(text: &str) -> String {
        Assignment::parse(text).unwrap_err()
    }

    #[test]
    fn values_of_every_type_reach_their_fields_and_leave_the_others_alone() {
        let mut spec = TrainingSpec {
            batch_size: Some(8),
            trainable: vec!["fc".to_owned()],
            ..Default::default()
        };
        for text in [
            "max_epochs=3",
            "optimizer.learning_rate=3e-4",
            "optimizer.beta1=0.5",
            "dataset.path=/faces",
            "init.kind=random",
            "promote=PROMOTE_IF_BETTER",
            "feature_cache=off",
            "trainable=layer4,fc",
            "max_duration=1m 30s",
            "seed=18446744073709551615",
        ] {
            set(&mut spec, text);
        }
        let optimizer = spec.optimizer.clone().unwrap();
        assert_eq!(
            (optimizer.learning_rate, optimizer.beta1, optimizer.beta2),
            (Some(3e-4), Some(0.5), None)
        );
        assert_eq!((spec.batch_size, spec.max_epochs), (Some(8), Some(3)));
        assert_eq!(spec.dataset.clone().unwrap().path, "/faces");
        assert_eq!(spec.init.clone().unwrap().kind(), InitKind::Random);
        assert_eq!(spec.promote(), Promote::IfBetter);
        assert_eq!(spec.feature_cache(), FeatureCache::Off);
        assert_eq!(spec.trainable, ["layer4", "fc"]);
        assert_eq!(spec.seed, Some(u64::MAX));
        let duration = spec.max_duration.unwrap();
        assert_eq!((duration.seconds, duration.nanos), (90, 0));
        set(&mut spec, r#"trainable=["ALL"]"#);
        assert_eq!(spec.trainable, ["ALL"]);
        set(&mut spec, r#"optimizer={"weight_decay": 0.5}"#);
        let optimizer = spec.optimizer.unwrap();
        assert_eq!(
            (optimizer.learning_rate, optimizer.weight_decay),
            (None, Some(0.5))
        );
    }

    #[test]
    fn a_wrong_name_proposes_near_ones() {
        assert_eq!(
            error("learning_rate=1"),
            "TrainingSpec has no field `learning_rate`; did you mean `optimizer.learning_rate`?"
        );
        assert!(error("batchsize=1").contains("did you mean `batch_size`"));
        assert!(error("optimizer.beta=1").contains("`optimizer.beta1` or `optimizer.beta2`"));
        assert!(error("lr=1").contains("; its fields are augmentation.brightness, "));
        // Nothing is inside of a number.
        assert!(error("seed.x=1").contains("no field `seed.x`"));
        assert!(error("max_duration.seconds=1").contains("no field `max_duration.seconds`"));
    }

    #[test]
    fn a_wrong_value_says_what_the_field_takes() {
        assert_eq!(
            error("batch_size=many"),
            "`batch_size` takes an integer of 0 or more, not `many`"
        );
        assert!(
            error("batch_size=-1")
                .starts_with("`batch_size` takes an integer of 0 or more, not `-1` (")
        );
        assert!(error("batch_size=1.5").starts_with("`batch_size` takes an integer"));
        assert_eq!(
            error("promote=maybe"),
            "`promote` takes one of ALWAYS, IF_BETTER, NEVER, not `maybe`"
        );
        assert_eq!(
            error("max_duration=soon"),
            "`max_duration` takes a duration such as 90s or 2h, not `soon`"
        );
        assert!(error("early_stopping=3").contains("name one of its fields (patience, min_delta)"));
        assert_eq!(
            error("batch_size"),
            "expected FIELD=VALUE, such as `batch_size=16`"
        );
    }
}
