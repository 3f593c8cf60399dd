//! Text to the JSON form of a field's type.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value as Json;

use crate::cli::args::api_enum;

/// Form in which users write the values of a type.
pub(super) enum Form {
    Float,
    Signed,
    Unsigned,
    Bool,
    Text,
    Enum(EnumDescriptor),
    Duration,
    Message(MessageDescriptor),
}

impl Form {
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Double | Kind::Float => Self::Float,
            Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Sfixed32
            | Kind::Sfixed64 => Self::Signed,
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Self::Unsigned,
            Kind::Bool => Self::Bool,
            Kind::String | Kind::Bytes => Self::Text,
            Kind::Enum(choices) => Self::Enum(choices),
            Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => {
                Self::Duration
            }
            Kind::Message(message) => Self::Message(message),
        }
    }

    /// The value in protobuf's JSON form; `None` if the text is not a value of the type.
    fn to_json(&self, text: &str) -> Option<Json> {
        match self {
            Self::Float | Self::Signed | Self::Unsigned => text.parse().ok().map(Json::Number),
            Self::Bool => text.parse().ok().map(Json::Bool),
            Self::Text => Some(Json::String(text.to_owned())),
            Self::Enum(choices) => {
                let wanted = text.to_ascii_uppercase().replace('-', "_");
                let name = |number| {
                    choices
                        .get_value(number)
                        .map(|value| value.name().to_owned())
                };
                let (short, number) =
                    api_enum::values(choices)
                        .into_iter()
                        .find(|(short, number)| {
                            *short == wanted || name(*number).as_ref() == Some(&wanted)
                        })?;
                Some(Json::String(name(number).unwrap_or(short)))
            }
            Self::Duration => {
                let duration = humantime::parse_duration(text).ok()?;
                let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
                Some(Json::String(format!("{seconds}.{nanoseconds:09}s")))
            }
            Self::Message(_) => serde_json::from_str(text).ok(),
        }
    }

    fn description(&self) -> String {
        match self {
            Self::Float => "a number".to_owned(),
            Self::Signed => "an integer".to_owned(),
            Self::Unsigned => "an integer of 0 or more".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Enum(choices) => {
                let values = api_enum::values(choices).into_iter();
                let names: Vec<String> = values.map(|(name, _)| name).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Duration => "a duration such as 90s or 2h".to_owned(),
            Self::Message(message) => {
                let fields = message.fields();
                let names: Vec<String> = fields.map(|inner| inner.name().to_owned()).collect();
                let names = names.join(", ");
                format!("a JSON object, or set one of its fields ({names})")
            }
        }
    }
}

pub(super) fn to_json(field: &FieldDescriptor, text: &str) -> Option<Json> {
    let form = Form::of(field.kind());
    if !field.is_list() {
        return form.to_json(text);
    }
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    text.split(',')
        .map(|item| form.to_json(item.trim()))
        .collect()
}

/// The values that a field takes, in words.
pub(super) fn expected(field: &FieldDescriptor) -> String {
    let one = Form::of(field.kind()).description();
    match field.is_list() {
        true => format!("a list, separated by commas or as a JSON array, of {one}"),
        false => one,
    }
}
