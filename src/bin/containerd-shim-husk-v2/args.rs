//! The command line, as Go's flag package reads it: one dash or two, `-name value` or `-name=value`.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Without an action: the long-lived shim itself, as `start` executes it.
    #[default]
    Serve,
    Start,
    Delete,
    Info,
    Version,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// containerd's own socket, which tells apart the shims of two containerds.
    pub address: String,
    pub debug: bool,
}

impl Flags {
    pub fn parse<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<Flags> {
        let mut flags = Flags::default();
        let mut arguments = arguments.map(|a| a.to_str().context("an argument is not UTF-8"));
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            let Some(flag) = argument.strip_prefix('-') else {
                flags.action = match argument {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => bail!("unknown action '{other}'; it is start or delete"),
                };
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            match name {
                "debug" => flags.debug = given != Some("false"),
                "v" | "version" => flags.action = Action::Version,
                "info" => flags.action = Action::Info,
                "namespace" | "id" | "address" | "bundle" | "publish-binary" => {
                    let value = match given {
                        Some(value) => value,
                        None => arguments
                            .next()
                            .with_context(|| format!("-{name} needs a value"))??,
                    };
                    match name {
                        "namespace" => flags.namespace = value.into(),
                        "id" => flags.id = value.into(),
                        "address" => flags.address = value.into(),
                        // the working directory is the bundle, and events go over TTRPC_ADDRESS
                        _ => {}
                    }
                }
                _ => bail!("unknown flag '-{name}'"),
            }
        }
        let one_shot = matches!(flags.action, Action::Version | Action::Info);
        if !one_shot && (flags.namespace.is_empty() || flags.id.is_empty()) {
            bail!("-namespace and -id are needed; this program is started by containerd");
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        Flags::parse(line.split_whitespace().map(OsStr::new))
    }

    #[test]
    fn flags_are_those_of_containerd() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a1 -debug start";
        let flags = parse(line).unwrap();
        assert_eq!((flags.action, flags.debug), (Action::Start, true));
        assert_eq!(
            [&flags.namespace, &flags.id, &flags.address],
            ["k8s.io", "a1", "/run/c.sock"]
        );
        let flags = parse("--namespace=n --id=x -bundle /b delete").unwrap();
        assert_eq!((flags.action, &*flags.id), (Action::Delete, "x"));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn faults_are_named() {
        let text = |line| parse(line).unwrap_err().to_string();
        assert_eq!(text("-id"), "-id needs a value");
        assert_eq!(text("-x"), "unknown flag '-x'");
        assert!(text("-id a").starts_with("-namespace and -id are needed"));
        assert!(text("stop").starts_with("unknown action 'stop'"));
    }
}
