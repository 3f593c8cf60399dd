//! Lookup of a field, and assignment of a value to it.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use serde::de::DeserializeSeed as _;
use serde_json::Value as Json;

use crate::{
    cli::{
        args::spec_field::{
            suggestions,
            value::{self, Form},
        },
        output::json,
    },
    proto::v1::TrainingSpec,
};

/// A field that exists.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    path: String,
    /// The message fields that lead from the spec to `last`.
    steps: Vec<FieldDescriptor>,
    last: FieldDescriptor,
}

impl Field {
    /// # Errors
    /// An unknown name; the message suggests similar ones.
    pub(crate) fn parse(path: &str) -> Result<Self, String> {
        let unknown = || {
            let suggestion = suggestions::suggest(path);
            format!("no field `{path}`; {suggestion}")
        };
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

    /// All fields with the values that each takes, in words.
    pub(crate) fn all() -> impl Iterator<Item = (String, String)> {
        suggestions::all_paths().into_iter().filter_map(|path| {
            let field = Self::parse(&path).ok()?;
            Some((path, value::expected(&field.last)))
        })
    }

    /// Full name in the API.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// True for integers, false for other numbers, `None` for other types.
    pub(crate) fn is_integer(&self) -> Option<bool> {
        match Form::of(self.last.kind()) {
            _ if self.last.is_list() => None,
            Form::Float => Some(false),
            Form::Signed | Form::Unsigned => Some(true),
            Form::Bool | Form::Text | Form::Enum(_) | Form::Duration | Form::Message(_) => None,
        }
    }

    /// # Errors
    /// Text that is not a value of the field's type.
    pub(crate) fn assign(&self, text: &str) -> Result<Assignment, String> {
        let refuse = |cause: &str| {
            let cause = match cause {
                "" => String::new(),
                cause => format!(" ({cause})"),
            };
            let expected = value::expected(&self.last);
            format!("`{}` must be {expected}, got `{text}`{cause}", self.path)
        };
        let json = value::to_json(&self.last, text).ok_or_else(|| refuse(""))?;
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
pub(crate) struct Assignment {
    field: Field,
    text: String,
    json: Json,
    value: Value,
}

impl Assignment {
    /// Parses `FIELD=VALUE`.
    ///
    /// # Errors
    /// Another form, an unknown field, or a value of another type.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = split_assignment(text)?;
        Field::parse(path)?.assign(value)
    }

    pub(crate) fn field(&self) -> &Field {
        &self.field
    }

    /// The value as the user typed it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn json(&self) -> &Json {
        &self.json
    }

    /// Sets the field of a spec to the value.
    pub(crate) fn apply(&self, spec: &mut TrainingSpec) {
        let mut dynamic = DynamicMessage::decode(
            json::descriptor("TrainingSpec"),
            spec.encode_to_vec().as_slice(),
        )
        .expect("a spec decodes with its own descriptor");
        let mut message = &mut dynamic;
        for step in &self.field.steps {
            let Value::Message(inner) = message.get_field_mut(step) else {
                unreachable!("{} is a message field", step.full_name());
            };
            message = inner;
        }
        message.set_field(&self.field.last, self.value.clone());
        *spec = TrainingSpec::decode(dynamic.encode_to_vec().as_slice())
            .expect("a spec decodes with its own descriptor");
    }
}

/// Splits `FIELD=VALUE`.
pub(crate) fn split_assignment(text: &str) -> Result<(&str, &str), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.trim(), value.trim())),
        _ => Err("expected FIELD=VALUE, such as `batch_size=16`".to_owned()),
    }
}

/// The message type of a field whose own fields can be named; `None` for lists and for types
/// that have a text form.
pub(super) fn inner_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match Form::of(field.kind()) {
        Form::Message(message) if !field.is_list() => Some(message),
        Form::Message(_)
        | Form::Float
        | Form::Signed
        | Form::Unsigned
        | Form::Bool
        | Form::Text
        | Form::Enum(_)
        | Form::Duration => None,
    }
}
