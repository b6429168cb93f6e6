//! What is wrong with a config, all at once, each with its JSON path.

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The faults found so far, and the warnings that the spec asks for.
#[derive(Debug, Default)]
pub struct Violations {
    faults: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl Violations {
    /// Notes that the field at a JSON path (`linux.namespaces[2].path`) must not be as it is. The message says what is wrong
    /// and, after "; ", what to do.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.faults.push((path.into(), message.into()));
    }

    /// Notes something that the spec tells a runtime to log and go on.
    pub fn warn(&mut self, path: &str, message: &str) {
        self.warnings.push(format!("{path}: {message}"));
    }

    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A string for the kernel: a NUL in it is a fault.
    pub fn cstring(&mut self, path: &str, text: impl AsRef<std::ffi::OsStr>) -> CString {
        CString::new(text.as_ref().as_bytes()).unwrap_or_else(|_| {
            self.add(path, "holds a NUL character; remove it");
            CString::default()
        })
    }

    pub fn into_result<T>(self, value: T) -> Result<T, Violations> {
        if self.faults.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// All of them as one error: on one line if it is only one.
    pub fn in_file(self, file: &std::path::Path) -> anyhow::Error {
        let file = file.display();
        match self.faults.len() {
            1 => anyhow::anyhow!("{file}: {self}"),
            n => anyhow::anyhow!("{file}: {n} faults:\n{self}"),
        }
    }

    /// The spec wants SemVer and a runtime to refuse a major version that it does not know. runc looks at none, and there are configs
    /// without or with an older one: only one that may mean what husk cannot know is refused.
    pub fn version(&mut self, version: &str) {
        const AT: &str = "ociVersion";
        let mut parts = version.split(['.', '-', '+']);
        let mut number = || parts.next().and_then(|p| p.parse::<u32>().ok());
        match (number(), number(), number()) {
            (Some(1), Some(_), Some(_)) => {}
            (Some(2..), ..) => self.add(
                AT,
                format!("is '{version}', husk knows 1.0.0 to 1.3.0; use a 1.x config"),
            ),
            (Some(0), ..) => self.warn(AT, &format!("is '{version}', read as if it were 1.0.0")),
            _ => self.warn(
                AT,
                &format!("is '{version}', not a version such as 1.2.1; read as if it were 1.0.0"),
            ),
        }
    }
}

impl std::error::Error for Violations {}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, (path, message)) in self.faults.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{path}: {message}")?;
        }
        Ok(())
    }
}

/// What the tests of the rooms share.
#[cfg(test)]
pub(crate) mod testing {
    use super::Violations;
    use crate::host::Host;
    use crate::plan::Options;
    use oci_spec::runtime::Spec;
    use serde_json::{Value, json};

    pub fn spec(config: Value) -> Spec {
        serde_json::from_value(config).expect("a config")
    }

    /// A config with these fields in `linux`, and its own mount namespace.
    pub fn linux(fields: Value) -> Spec {
        let mut linux = json!({"namespaces": [{"type": "mount"}]});
        let all = linux.as_object_mut().unwrap();
        all.extend(fields.as_object().expect("an object").clone());
        spec(json!({"root": {"path": "rootfs"}, "linux": linux}))
    }

    pub fn root() -> Host {
        Host::default()
    }

    pub fn user(id: u32) -> Host {
        Host {
            euid: id,
            egid: id,
            ..Host::default()
        }
    }

    pub fn options() -> Options {
        Options {
            id: "c1".into(),
            bundle: "/bundle".into(),
            ..Options::default()
        }
    }

    /// What a function that adds violations returned, and their text.
    pub fn with<T>(f: impl FnOnce(&mut Violations) -> T) -> (T, String) {
        let mut v = Violations::default();
        let result = f(&mut v);
        (result, v.to_string())
    }

    /// The result of a function that must find nothing wrong, nor anything to warn about.
    pub fn good<T>(f: impl FnOnce(&mut Violations) -> T) -> T {
        let (result, warnings) = warned(f);
        assert_eq!(warnings, Vec::<String>::new());
        result
    }

    /// The result of a function that must find nothing wrong, and its warnings.
    pub fn warned<T>(f: impl FnOnce(&mut Violations) -> T) -> (T, Vec<String>) {
        let mut v = Violations::default();
        let result = f(&mut v);
        assert_eq!(v.to_string(), "");
        (result, v.take_warnings())
    }

    /// The text of the faults that a function must find.
    pub fn faults<T>(f: impl FnOnce(&mut Violations) -> T) -> String {
        let (_, faults) = with(f);
        assert_ne!(faults, "", "nothing was found wrong");
        faults
    }
}
