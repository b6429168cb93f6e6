//! `husk-docs DIR` writes husk's manual pages and completions into DIR, laid out as below `/usr/local/share`.
//!
//! A binary of its own, for install time: what generates them would be in every husk otherwise.

use anyhow::{Context, Result};
use clap_complete::Shell;
use std::path::Path;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).context("usage: husk-docs DIR")?;
    let dir = Path::new(&dir);
    for (shell, place, name) in [
        (Shell::Bash, "bash-completion/completions", "husk"),
        (Shell::Zsh, "zsh/site-functions", "_husk"),
        (Shell::Fish, "fish/vendor_completions.d", "husk.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut husk::cli::tree(), "husk", &mut text);
        write(&dir.join(place), name, &text)?;
    }
    let mut tree = husk::cli::tree();
    tree.build(); // each command knows its whole name
    for command in std::iter::once(&tree).chain(tree.get_subcommands()) {
        let man = clap_mangen::Man::new(command.clone())
            .section("8")
            .manual("husk")
            .source(concat!("husk ", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        man.render(&mut text)?;
        write(&dir.join("man/man8"), &man.get_filename(), &text)?;
    }
    Ok(())
}

fn write(dir: &Path, name: &str, text: &[u8]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("make '{}'", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("write '{}'", path.display()))
}
