//! The settings as TOML, as JSON and as the table of the documentation.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    Resolved, ServeConfig,
    settings::{SETTINGS, Setting},
    value::Shown,
};

impl Resolved {
    /// The settings as a TOML file that can be used as one, each under a comment that says what it does and who set it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut config = self.config.clone();
        let mut text = String::new();
        for setting in SETTINGS {
            let line = match setting.field.shown(&mut config) {
                Shown::Unset => format!("# {} is not set", setting.name),
                shown @ (Shown::Text(_)
                | Shown::Integer(_)
                | Shown::Number(_)
                | Shown::Boolean(_)
                | Shown::List(_)) => {
                    format!("{} = {}", setting.name, toml_value(shown))
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

    /// The settings as an object: name to `{"value": …, "source": …}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut config = self.config.clone();
        let entries: Map<String, Value> = SETTINGS
            .iter()
            .map(|setting| {
                let value = match setting.field.shown(&mut config) {
                    Shown::Text(text) => json!(text),
                    Shown::Integer(number) => json!(number),
                    Shown::Number(number) => json!(number),
                    Shown::Boolean(value) => json!(value),
                    Shown::List(items) => json!(items),
                    Shown::Unset => Value::Null,
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
    /// The default as people write it.
    #[must_use]
    pub fn default_text(&self) -> String {
        if let Some(note) = self.default_note {
            return note.to_owned();
        }
        match self.field.shown(&mut ServeConfig::default()) {
            Shown::Text(text) => format!("`{text}`"),
            Shown::Integer(number) => format!("`{number}`"),
            Shown::Number(number) => format!("`{number}`"),
            Shown::Boolean(value) => format!("`{value}`"),
            Shown::List(items) if items.is_empty() => "none".to_owned(),
            Shown::List(items) => format!("`{}`", items.join(",")),
            Shown::Unset => "none".to_owned(),
        }
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn allowed_text(&self) -> String {
        self.field.allowed()
    }
}

/// The table of all settings for the documentation, as Markdown.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| Setting (file) | Variable | Flag | Default | Allowed | What it does |\n|---|---|---|---|---|---|\n",
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

fn toml_value(shown: Shown) -> toml::Value {
    match shown {
        Shown::Text(text) => toml::Value::String(text),
        // No setting allows a number that does not fit.
        Shown::Integer(number) => toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
        Shown::Number(number) => toml::Value::Float(number),
        Shown::Boolean(value) => toml::Value::Boolean(value),
        Shown::List(items) => {
            toml::Value::Array(items.into_iter().map(toml::Value::String).collect())
        }
        Shown::Unset => toml::Value::String(String::new()),
    }
}
