//! Tables for people.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

/// Names up to this length are never broken, in characters.
const WHOLE_NAME: usize = 40;

/// In fewer columns than these nothing is wrapped, in characters.
const NARROWEST: u16 = 20;

/// Columns with a head, without lines; cells are wrapped to the width of a terminal.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    // A terminal that does not know its width has 0 columns.
    if table.width().is_some_and(|width| width < NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    let mut longest = 0;
    for row in rows {
        longest = longest.max(row.first().map_or(0, |name| name.chars().count()));
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // A name that is broken cannot be copied.
    if let Some(names) = table.column_mut(0).filter(|_| longest <= WHOLE_NAME) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Names with their values, one below the other; a value of several lines stays in its column.
pub(super) fn pairs<'a>(lines: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines: Vec<(&str, String)> = lines.into_iter().collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let indent = format!("\n{:width$}  ", "");
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}", value.replace('\n', &indent));
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}
