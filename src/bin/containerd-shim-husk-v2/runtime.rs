//! The runtime: its options, its command line, and its last words.

use anyhow::{Context, Result, bail};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci;
use husk::sys::process;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where husk keeps its state for containerd's containers, unless the options have another place: a directory a namespace.
const ROOT: &str = "/run/containerd/husk";
const OPTIONS_FILE: &str = "options.json";
const TYPE: &str = "containerd.runc.v1.Options";
/// What containerd's CRI and Docker send to a shim that they do not know: the same options as TOML.
const GENERIC: &str = "runtimeoptions.v1.Options";

/// runc's options, those that mean something without it. Kept in the bundle for the cleanup after a shim's death.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub binary_name: String,
    pub root: String,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub io_uid: u32,
    pub io_gid: u32,
    pub shim_cgroup: String,
}

impl Options {
    /// Whether it is a message of these, and not of something else that a shim may be told.
    pub fn are(any: &Any) -> bool {
        [TYPE, GENERIC].contains(&name_of(any))
    }

    /// None is what containerd sends without any options.
    pub fn from_any(any: Option<&Any>) -> Result<Options> {
        let Some(any) = any.filter(|a| !a.type_url.is_empty() || !a.value.is_empty()) else {
            return Ok(Options::default());
        };
        match name_of(any) {
            TYPE => {}
            GENERIC => return Options::from_generic(&any.value),
            _ => bail!(
                "options of type '{}': only '{TYPE}' and '{GENERIC}' are known",
                any.type_url
            ),
        }
        let o =
            oci::Options::parse_from_bytes(&any.value).context("parse the runtime's options")?;
        Ok(Options {
            binary_name: o.binary_name,
            root: o.root,
            systemd_cgroup: o.systemd_cgroup,
            no_pivot_root: o.no_pivot_root,
            no_new_keyring: o.no_new_keyring,
            io_uid: o.io_uid,
            io_gid: o.io_gid,
            shim_cgroup: o.shim_cgroup,
        })
    }

    /// `{ type_url, config_path, config_body }`: the file, or else the text.
    fn from_generic(bytes: &[u8]) -> Result<Options> {
        let (mut path, mut body) = (String::new(), Vec::new());
        let mut stream = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            match tag >> 3 {
                1 => _ = stream.read_string()?,
                2 => path = stream.read_string()?,
                3 => body = stream.read_bytes()?,
                _ => bail!(
                    "options of type '{GENERIC}': field {} is not known",
                    tag >> 3
                ),
            }
        }
        if !path.is_empty() {
            body = std::fs::read(&path).with_context(|| format!("read the options '{path}'"))?;
        }
        Options::from_toml(&String::from_utf8_lossy(&body))
    }

    /// Lines of `Name = value`, which is all that these options need of TOML.
    fn from_toml(text: &str) -> Result<Options> {
        let mut options = Options::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .with_context(|| format!("option '{line}': is not 'Name = value'"))?;
            let expected = |what| format!("option '{name}': '{value}' is not {what}");
            let flag = || value.parse().with_context(|| expected("true or false"));
            let id = || value.parse().with_context(|| expected("an id"));
            let string = || {
                let quoted = ['"', '\'']
                    .iter()
                    .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
                let plain = quoted.filter(|v| !v.contains(['"', '\'', '\\']));
                plain
                    .map(String::from)
                    .with_context(|| expected("a string in quotes"))
            };
            match name {
                "BinaryName" => options.binary_name = string()?,
                "Root" => options.root = string()?,
                "SystemdCgroup" => options.systemd_cgroup = flag()?,
                "NoPivotRoot" => options.no_pivot_root = flag()?,
                "NoNewKeyring" => options.no_new_keyring = flag()?,
                "IoUid" => options.io_uid = id()?,
                "IoGid" => options.io_gid = id()?,
                "ShimCgroup" => options.shim_cgroup = string()?,
                // where a checkpoint would lie, which is refused itself; containerd's defaults for the handler `runc` have them
                "CriuImagePath" | "CriuPath" | "CriuWorkPath" => _ = string()?,
                _ => bail!("option '{name}' is not known"),
            }
        }
        Ok(options)
    }

    /// By rename: whoever cleans up after a shim that was killed meanwhile finds all or nothing.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(OPTIONS_FILE);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write '{}'", path.display()))
    }

    /// A bundle that no container was made from has none. Those that cannot be read are warned about: a cleanup by the defaults is mostly
    /// right, and better than none.
    pub fn load(bundle: &Path) -> Options {
        let path = bundle.join(OPTIONS_FILE);
        let read = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Options::default(),
            other => other.map_err(anyhow::Error::from),
        };
        let options = read.and_then(|text| Ok(serde_json::from_slice(&text)?));
        options.unwrap_or_else(|e| {
            husk::log::warn(format_args!(
                "read '{}': {}; going on with the default options",
                path.display(),
                husk::error::text(&e)
            ));
            Options::default()
        })
    }
}

#[derive(Clone, Debug)]
pub struct Runtime {
    binary: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
    bundle: PathBuf,
}

impl Runtime {
    pub fn new(options: &Options, namespace: &str, bundle: &Path) -> Runtime {
        let root = match &*options.root {
            "" => ROOT,
            root => root,
        };
        Runtime {
            binary: binary(&options.binary_name),
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            bundle: bundle.into(),
        }
    }

    /// A command line up to the verb.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--log").arg(self.log());
        command.arg("--log-format").arg("json");
        command.current_dir(&self.bundle);
        self.complete(command, verb)
    }

    /// The same when the bundle may be gone: what it says is not logged, but printed.
    pub fn command_without_bundle(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir("/");
        self.complete(command, verb)
    }

    fn complete(&self, mut command: Command, verb: &str) -> Command {
        command.arg("--root").arg(&self.root);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb);
        // containerd's own, which systemd gave to it and the shim inherits: `start` would wait for the container to be ready
        command.env_remove("NOTIFY_SOCKET");
        process::unblock_signals(&mut command);
        process::limit_files(&mut command);
        // what nobody will hear of, in a hook perhaps, would keep the container's lock from the cleanup after the shim's death
        if ["create", "start", "exec"].contains(&verb) {
            process::end_together(&mut command);
        }
        command
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }

    /// To be taken before a command runs, for [`Runtime::last_words`] of that command alone.
    pub fn log_size(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |m| m.len())
    }

    /// The last error that was logged after `from`.
    pub fn last_words(&self, from: u64) -> Option<String> {
        let mut text = String::new();
        let mut file = File::open(self.log()).ok()?;
        file.seek(SeekFrom::Start(from)).ok()?;
        file.read_to_string(&mut text).ok()?;
        last_error(&text)
    }
}

/// Without the host that an URL of a type begins with.
fn name_of(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut lines = log
        .lines()
        .rev()
        .filter_map(|l| serde_json::from_str::<Line>(l).ok());
    lines
        .find(|l| l.level == "error")
        .map(|l| l.msg.trim().to_string())
}

/// The husk beside this shim, if it is there, else the one in PATH.
pub fn binary(name: &str) -> PathBuf {
    if !name.is_empty() {
        return name.into();
    }
    let own = std::env::current_exe().ok();
    own.and_then(|exe| Some(exe.parent()?.join("husk")))
        .filter(|husk| husk.exists())
        .unwrap_or_else(|| "husk".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_runcs() {
        let mut options = oci::Options::new();
        options.binary_name = "/opt/husk".into();
        options.systemd_cgroup = true;
        options.io_uid = 7;
        let mut any = Any::new();
        any.type_url = format!("type.googleapis.com/{TYPE}");
        any.value = options.write_to_bytes().unwrap();
        let options = Options::from_any(Some(&any)).unwrap();
        assert_eq!(options.binary_name, "/opt/husk");
        assert!(options.systemd_cgroup && options.io_uid == 7);
        assert_eq!(Options::from_any(None).unwrap(), Options::default());
        any.type_url = "x.Options".into();
        let e = Options::from_any(Some(&any)).unwrap_err().to_string();
        assert!(e.starts_with("options of type 'x.Options'"), "{e}");
    }

    #[test]
    fn options_as_toml_are_the_same() {
        let text = "SystemdCgroup = true\n# a comment\nRoot = '/r'\nBinaryName = \"/opt/husk\"\nIoUid = 7\nCriuWorkPath = ''\n";
        let mut any = Any::new();
        any.type_url = GENERIC.into();
        any.value = [&[0x1a, text.len() as u8], text.as_bytes()].concat();
        let options = Options::from_any(Some(&any)).unwrap();
        assert_eq!((&*options.root, &*options.binary_name), ("/r", "/opt/husk"));
        assert!(options.systemd_cgroup && options.io_uid == 7);
        let text = |t| Options::from_toml(t).unwrap_err().to_string();
        assert_eq!(text("Binary = 'x'"), "option 'Binary' is not known");
        assert_eq!(
            text("Root = /r"),
            "option 'Root': '/r' is not a string in quotes"
        );
        assert_eq!(text("IoUid = -1"), "option 'IoUid': '-1' is not an id");
        assert_eq!(text("[x]"), "option '[x]': is not 'Name = value'");
    }

    #[test]
    fn options_are_kept_in_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Options::load(dir.path());
        assert_eq!(load(), Options::default());
        let options = Options {
            root: "/r".into(),
            ..Options::default()
        };
        options.save(dir.path()).unwrap();
        assert_eq!(load(), options);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        for damaged in ["", "{\"root\":\"/r", "[]"] {
            std::fs::write(dir.path().join(OPTIONS_FILE), damaged).unwrap();
            assert_eq!(load(), Options::default());
        }
    }

    #[test]
    fn the_last_error_counts() {
        let log = r#"{"level":"warning","msg":"w","time":""}
{"level":"error","msg":"first","time":""}
{"level":"error","msg":" exec: \"x\": executable file not found in $PATH\n","time":""}
not json
"#;
        let words = last_error(log).unwrap();
        assert_eq!(words, "exec: \"x\": executable file not found in $PATH");
        assert_eq!(last_error("{\"level\":\"warning\",\"msg\":\"w\"}"), None);
    }
}
