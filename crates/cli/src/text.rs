//! Text for users: single lines, tables, ages and sizes.

use std::time::{Duration, SystemTime};

/// Returns `text` as one line that cannot control a terminal.
pub(crate) fn one_line(text: &str) -> String {
    microsandbox::escape(text.trim()).into_owned()
}

/// Returns one line per text.
pub(crate) fn lines<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(|text| format!("{}\n", one_line(text))).collect()
}

/// Returns a table whose columns are as wide as their widest cell.
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
        let cells = row.iter().zip(widths);
        let line: String = cells.map(|(cell, width)| format!("{cell:width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns one line per field: its name, then its value.
pub(crate) fn fields(rows: Vec<[String; 2]>) -> String {
    let width = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0) + 1;
    let line = |[name, value]: [String; 2]| {
        format!("{:width$}  {}\n", format!("{name}:"), one_line(&value))
    };
    rows.into_iter().map(line).collect()
}

/// Returns the value, or a dash for none.
pub(crate) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// Returns an age in its largest unit.
pub(crate) fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}

/// Returns how long ago `time` was, in its largest unit.
pub(crate) fn since(time: SystemTime) -> String {
    ago(time.elapsed().unwrap_or_default())
}

/// Returns a size in its largest decimal unit, with one decimal place.
pub(crate) fn decimal_size(bytes: u64) -> String {
    let units = [(12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")];
    let sizes = units.map(|(exponent, unit)| (10_u64.pow(exponent), unit));
    match sizes.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", bytes / size, bytes % size / (size / 10)),
        None => format!("{bytes} B"),
    }
}

/// Returns a size in its largest binary unit that holds it exactly.
pub(crate) fn binary_size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    match whole {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_stays_on_one_line_without_controls() {
        assert_eq!(one_line("a\nb\tc \n"), "a b c");
        assert_eq!(one_line("a\u{1b}[2Jb\r"), "a\\u{1b}[2Jb");
        assert_eq!(one_line("grün"), "grün");
    }

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
    fn ages_and_sizes_have_one_unit() {
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(60)], ["0s ago", "59s ago", "1m ago"]);
        assert_eq!([of(7199), of(90_000)], ["1h ago", "1d ago"]);
        assert_eq!([0, 999, 1000].map(decimal_size), ["0 B", "999 B", "1.0 kB"]);
        assert_eq!([2_131_968, 1_250_000_000].map(decimal_size), ["2.1 MB", "1.2 GB"]);
        assert_eq!(decimal_size(3_990_000_000_000_000), "3990.0 TB");
        assert_eq!([1 << 31, 1025].map(binary_size), ["2 GiB", "1025 bytes"]);
    }
}
