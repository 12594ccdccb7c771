//! Tables for people, and what goes into their cells.

use crate::stdio::one_line;
use std::time::Duration;

/// Lines of columns that are as wide as their widest cell; nothing without rows but the heads.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    let heads = heads.map(str::to_owned);
    let rows: Vec<[String; N]> =
        std::iter::once(heads).chain(rows).map(|row| row.map(|cell| one_line(&cell))).collect();
    let width = |cell: &String| cell.chars().count();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line for each field: its name, and behind it its value.
pub(crate) fn fields(rows: Vec<[String; 2]>) -> String {
    let width = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0) + 1;
    let line = |[name, value]: [String; 2]| {
        format!("{:width$}  {}\n", format!("{name}:"), one_line(&value))
    };
    rows.into_iter().map(line).collect()
}

/// How long ago, in its largest unit.
pub(crate) fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![["a".to_owned(), "1".to_owned()], ["längst".to_owned(), "a\nb".to_owned()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME    N\na       1\nlängst  a b\n");
        assert_eq!(table(["NAME"], Vec::new()), "NAME\n");
    }

    #[test]
    fn j8_fields_are_one_line_each() {
        let rows =
            vec![["Name".to_owned(), "a\nb".to_owned()], ["Driver".to_owned(), "c".to_owned()]];
        assert_eq!(fields(rows), "Name:    a b\nDriver:  c\n");
    }

    #[test]
    fn ages_have_one_unit() {
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(60)], ["0s ago", "59s ago", "1m ago"]);
        assert_eq!([of(7199), of(90_000)], ["1h ago", "1d ago"]);
    }
}
