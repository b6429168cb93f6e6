//! `husk list`: a container that cannot be read is warned about, and the others are listed.

use super::{print, print_json, user_name};
use crate::cli::{self, Output};
use crate::state::{Report, Root, State, StateDir, Status};
use crate::{error, log};
use anyhow::Result;

pub fn run(global: &cli::Global, args: cli::List) -> Result<i32> {
    let root = Root::new(global)?;
    let ids = root.ids()?;
    if args.quiet {
        print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    let mut found: Vec<(State, Status)> = Vec::new();
    for id in &ids {
        let loaded =
            StateDir::find(&root, id).and_then(|dir| dir.map(|d| d.load_with_status()).transpose());
        match loaded {
            Ok(state) => found.extend(state), // None: deleted since
            Err(e) => log::warn(format_args!("list '{id}': {}", error::text(&e))),
        }
    }
    let reports: Vec<Report> = found
        .iter()
        .map(|(state, status)| state.report(*status, user_name(state.owner)))
        .collect();
    match args.format {
        Output::Table => print(&table(&reports))?,
        // runc prints the nil slice of Go
        Output::Json if reports.is_empty() => print("null\n")?,
        Output::Json => print_json(serde_json::to_string(&reports)?)?,
    }
    Ok(0)
}

fn table(reports: &[Report]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(reports.iter().map(|r| {
        [
            r.id.to_string(),
            r.pid.to_string(),
            r.status.to_string(),
            error::printable(&r.bundle.display().to_string()),
            r.created.to_string(),
            r.owner.clone(),
        ]
    }));
    align(&rows)
}

/// Columns of at least 12 characters with 3 blanks between, as Go's tabwriter sets them for runc.
fn align(rows: &[[String; 6]]) -> String {
    let widths = [0, 1, 2, 3, 4].map(|column: usize| {
        let longest = rows.iter().map(|r| r[column].chars().count()).max();
        12.max(longest.unwrap_or(0) + 3)
    });
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            out.push_str(&format!("{cell:<width$}"));
        }
        out.push_str(&row[5]);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_laid_out_as_runcs() {
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
        let state = State {
            id: "a-long-container-name".into(),
            bundle: "/b\u{1b}".into(),
            created: "2026".into(),
            ..State::default()
        };
        let report = state.report(Status::Stopped, "root".into());
        let out = table(&[report]);
        assert_eq!(
            out.lines().nth(1),
            Some("a-long-container-name   0           stopped     /b\\u{1b}    2026        root")
        );
    }
}
