//! One file a verb: lock → load → call → print.

pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod ps;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use anyhow::{Context, Result};
use std::io::Write;

/// Prints on standard output; unlike `print!` it fails rather than panics when nobody reads.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("write to standard output")
}

/// Prints JSON and a line end. Strings of a config are in it, which a terminal must not act on.
fn print_json(json: String) -> Result<()> {
    print(&(crate::error::printable_json(json) + "\n"))
}

/// The name of a uid, or "#UID" as runc has it.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into(); // spares `state` a file
    }
    std::fs::read_to_string("/etc/passwd")
        .ok()
        .and_then(|passwd| name_in(&passwd, uid))
        .unwrap_or_else(|| format!("#{uid}"))
}

/// passwd(5): name:password:UID:…
fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_by_name() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/:\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in(passwd, 7), None);
        assert_eq!(user_name(0), "root");
    }
}
