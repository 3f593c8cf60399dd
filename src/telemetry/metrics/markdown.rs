use super::families::FAMILIES;

/// The reference table of all metrics in Markdown, with a line end after each row.
pub fn markdown_table() -> String {
    let mut table = String::from("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| match label.values {
                [] => format!("`{}`", label.key),
                values => format!("`{}`: {}", label.key, values.join(", ")),
            })
            .collect();
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind.as_str(),
            labels.join("; "),
            family.help
        ));
    }
    table
}
