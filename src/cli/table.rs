//! Tables for people.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

/// In fewer columns than these nothing is wrapped, in characters.
const NARROWEST: u16 = 20;

/// In less than this no text is wrapped, as words would be broken, in characters.
const NARROWEST_TEXT: usize = 20;

/// What is between two columns, in characters.
const GAP: usize = 2;

/// Columns with a head, without lines; cells are wrapped to the width of a terminal. Where that is too narrow for it, the cells of
/// each row stand one below the other.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    // A terminal that does not know its width has 0 columns.
    let width = Table::new().width().filter(|width| *width >= NARROWEST);
    table_in(width, head, &rows.into_iter().collect::<Vec<_>>())
}

/// As [`table`], as wide as there is room for.
fn table_in<const N: usize>(width: Option<u16>, head: [&str; N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    table.add_rows(rows);
    let widest = |column: usize| {
        let cells = rows.iter().flat_map(|row| row[column].lines()).chain([head[column]]);
        cells.map(|line| line.chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(widest);
    let room = width.map_or(usize::MAX, usize::from);
    if let Some(width) = width
        && widths.iter().map(|width| width + GAP).sum::<usize>() > room + GAP
    {
        // Names that are broken cannot be copied, and short words not be read.
        let is_whole = |column: usize| column == 0 || widths[column] <= room / 3;
        let whole: usize = (0..N).filter(|column| is_whole(*column)).map(|column| widths[column] + GAP).sum();
        let texts = (0..N).filter(|column| !is_whole(*column)).count();
        if room.saturating_sub(whole) < texts.max(1) * NARROWEST_TEXT {
            return stacked(rows);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for column in (0..N).filter(|column| is_whole(*column)) {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// What stands first in a row, and the rest below it.
fn stacked<const N: usize>(rows: &[[String; N]]) -> String {
    let row = |row: &[String; N]| {
        let below = row.iter().skip(1).filter(|cell| !cell.is_empty());
        let below = below.map(|cell| format!("\n  {}", cell.replace('\n', "\n  ")));
        format!("{}{}", row[0], below.collect::<String>())
    };
    rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Names with their values, one below the other; a value of several lines stays in its column.
pub(super) fn pairs<'a>(lines: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines: Vec<(&str, String)> = lines.into_iter().collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let indent = format!("\n{:width$}  ", "");
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}", value.replace('\n', &indent));
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 3] = ["SETTING", "VALUE", "FROM"];

    fn rows() -> [[String; 3]; 2] {
        [["aggregator.managementTools", "read", "default"], ["listen", "127.0.0.1:8090", ""]]
            .map(|row| row.map(str::to_owned))
    }

    #[test]
    fn what_fits_is_a_table() {
        let table = "SETTING                     VALUE           FROM\n\
            aggregator.managementTools  read            default\n\
            listen                      127.0.0.1:8090";
        for width in [None, Some(51), Some(200)] {
            assert_eq!(table_in(width, HEAD, &rows()), table, "{width:?}");
        }
    }

    #[test]
    fn no_word_is_broken_in_a_narrow_terminal() {
        let stacked = "aggregator.managementTools\n  read\n  default\nlisten\n  127.0.0.1:8090";
        assert_eq!(table_in(Some(40), HEAD, &rows()), stacked);
        let text = "Lists the definitions of all MCP servers.";
        let table = table_in(
            Some(50),
            ["TOOL", "DESCRIPTION"],
            &[["core_mcpserver_list".to_owned(), text.to_owned()]],
        );
        let wrapped = "TOOL                 DESCRIPTION\n\
            core_mcpserver_list  Lists the definitions of\n\
            \x20                    all MCP servers.";
        assert_eq!(table, wrapped);
    }
}
