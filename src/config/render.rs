//! The settings as TOML, as JSON and as the Markdown table of the documentation.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    Resolved, ServeConfig,
    settings::{SETTINGS, Setting},
    value::DisplayValue,
};

impl Resolved {
    /// A valid TOML file, in which each setting has a comment with its description and source.
    #[must_use]
    pub(crate) fn to_toml(&self) -> String {
        let mut config = self.config.clone();
        let mut text = String::new();
        for setting in SETTINGS {
            let line = match setting.field.display(&mut config) {
                DisplayValue::Unset => format!("# {} is not set", setting.name),
                value @ (DisplayValue::Text(_)
                | DisplayValue::Integer(_)
                | DisplayValue::Number(_)
                | DisplayValue::Boolean(_)
                | DisplayValue::List(_)) => {
                    format!("{} = {}", setting.name, toml_value(value))
                }
            };
            writeln!(
                text,
                "# {}\n# from: {}\n{line}\n",
                setting.doc,
                self.source(setting.name)
            )
            .expect("writing to a string cannot fail");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// An object from names to `{"value": …, "source": …}`.
    #[must_use]
    pub(crate) fn to_json(&self) -> Value {
        let mut config = self.config.clone();
        let entries: Map<String, Value> = SETTINGS
            .iter()
            .map(|setting| {
                let value = match setting.field.display(&mut config) {
                    DisplayValue::Text(text) => json!(text),
                    DisplayValue::Integer(number) => json!(number),
                    DisplayValue::Number(number) => json!(number),
                    DisplayValue::Boolean(value) => json!(value),
                    DisplayValue::List(items) => json!(items),
                    DisplayValue::Unset => Value::Null,
                };
                let source = self.source(setting.name).to_string();
                (
                    setting.name.to_owned(),
                    json!({ "value": value, "source": source }),
                )
            })
            .collect();
        Value::Object(entries)
    }
}

impl Setting {
    /// The default in Markdown.
    #[must_use]
    pub(crate) fn default_text(&self) -> String {
        if let Some(note) = self.default_note {
            return note.to_owned();
        }
        match self.field.display(&mut ServeConfig::default()) {
            DisplayValue::Text(text) => format!("`{text}`"),
            DisplayValue::Integer(number) => format!("`{number}`"),
            DisplayValue::Number(number) => format!("`{number}`"),
            DisplayValue::Boolean(value) => format!("`{value}`"),
            DisplayValue::List(items) if items.is_empty() => "none".to_owned(),
            DisplayValue::List(items) => format!("`{}`", items.join(",")),
            DisplayValue::Unset => "none".to_owned(),
        }
    }

    #[must_use]
    pub(crate) fn allowed_text(&self) -> String {
        self.field.allowed()
    }
}

#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| Setting (file) | Variable | Flag | Default | Allowed | Description |\n|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        writeln!(
            table,
            "| `{}` | `{}` | `--{}` | {} | {} | {} |",
            setting.name,
            setting.variable(),
            setting.flag(),
            setting.default_text(),
            setting.allowed_text().replace('|', "\\|"),
            setting.doc
        )
        .expect("writing to a string cannot fail");
    }
    table
}

fn toml_value(value: DisplayValue) -> toml::Value {
    match value {
        DisplayValue::Text(text) => toml::Value::String(text),
        // The range of every setting fits.
        DisplayValue::Integer(number) => {
            toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
        }
        DisplayValue::Number(number) => toml::Value::Float(number),
        DisplayValue::Boolean(value) => toml::Value::Boolean(value),
        DisplayValue::List(items) => {
            toml::Value::Array(items.into_iter().map(toml::Value::String).collect())
        }
        DisplayValue::Unset => toml::Value::String(String::new()),
    }
}
