//! A table for people, on the standard error: figures go to the standard output.

/// Prints rows below a header, each column as wide as its widest cell.
pub(crate) fn print(header: &[&str], rows: &[Vec<String>]) {
    eprintln!("\n{}", text(header, rows));
}

fn text(header: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = header.iter().map(|word| (*word).to_owned()).collect();
    let width = |at: usize| {
        std::iter::once(&head)
            .chain(rows)
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(at, cell)| format!("{cell:<wide$}", wide = width(at).unwrap_or(0)))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    std::iter::once(&head).chain(rows).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [vec!["fork-bomb".to_owned(), "yes".to_owned()], vec!["x".to_owned(), "NO".to_owned()]];
        assert_eq!(text(&["rule", "caught"], &rows), "rule       caught\nfork-bomb  yes\nx          NO");
    }
}
