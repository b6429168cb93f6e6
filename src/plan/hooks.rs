//! The six kinds of hooks.

use super::Violations;
use oci_spec::runtime::{self as oci, Spec};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Kept in state.json for those that later commands run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    /// `args[0]` included; the path where the config has none.
    pub args: Vec<String>,
    /// "KEY=VALUE"; None gives husk's own environment, as with runc (startContainer: the container's).
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// The hooks of a config.
pub fn plan(spec: &Spec, bundle: &Path, v: &mut Violations) -> Hooks {
    let Some(hooks) = spec.hooks() else {
        return Hooks::default();
    };
    #[allow(deprecated)] // the spec still wants prestart hooks run
    let prestart = hooks.prestart();
    Hooks {
        prestart: list(prestart, "prestart", Some(bundle), v),
        create_runtime: list(hooks.create_runtime(), "createRuntime", Some(bundle), v),
        create_container: list(hooks.create_container(), "createContainer", None, v),
        start_container: list(hooks.start_container(), "startContainer", None, v),
        poststart: list(hooks.poststart(), "poststart", Some(bundle), v),
        poststop: list(hooks.poststop(), "poststop", Some(bundle), v),
    }
}

/// `bundle` is where those run that husk itself runs.
fn list(
    hooks: &Option<Vec<oci::Hook>>,
    kind: &str,
    bundle: Option<&Path>,
    v: &mut Violations,
) -> Vec<Hook> {
    let hooks = hooks.iter().flatten().enumerate();
    hooks
        .map(|(i, hook)| one(hook, &format!("hooks.{kind}[{i}]"), bundle, v))
        .collect()
}

fn one(hook: &oci::Hook, at: &str, bundle: Option<&Path>, v: &mut Violations) -> Hook {
    let path = hook.path();
    match bundle {
        _ if path.is_absolute() => {}
        // as with runc
        Some(_) if !path.as_os_str().is_empty() => v.warn(
            &format!("{at}.path"),
            &format!(
                "'{}' is relative; it is taken from the bundle",
                path.display()
            ),
        ),
        _ => v.add(
            format!("{at}.path"),
            format!("'{}' is not an absolute path", path.display()),
        ),
    }
    v.cstring(&format!("{at}.path"), path);
    let args = hook.args().clone().filter(|a| !a.is_empty());
    let args = args.unwrap_or_else(|| vec![path.to_string_lossy().into_owned()]);
    let env = hook.env().clone();
    for (field, list) in [("args", Some(&args)), ("env", env.as_ref())] {
        for (i, text) in list.into_iter().flatten().enumerate() {
            v.cstring(&format!("{at}.{field}[{i}]"), text);
        }
    }
    Hook {
        path: bundle.map_or_else(|| path.clone(), |bundle| bundle.join(path)),
        args,
        env,
        timeout: hook
            .timeout()
            .map(|t| timeout(t, &format!("{at}.timeout"), v)),
    }
}

fn timeout(seconds: i64, at: &str, v: &mut Violations) -> u32 {
    if seconds <= 0 {
        v.add(
            at,
            format!("{seconds} is not a number of seconds above 0; remove it for no limit"),
        );
    }
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_has_all_fields() {
        let kinds = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        let mut all = serde_json::Map::new();
        for (i, kind) in (1..).zip(kinds) {
            let hook = json!({"path": format!("/{kind}"), "args": [kind, "x"], "env": [format!("K={kind}")], "timeout": i});
            all.insert(kind.into(), json!([hook]));
        }
        let h = good(|v| plan(&spec(json!({ "hooks": all })), Path::new("/bundle"), v));
        let lists = [
            h.prestart,
            h.create_runtime,
            h.create_container,
            h.start_container,
            h.poststart,
            h.poststop,
        ];
        for ((i, kind), list) in (1..).zip(kinds).zip(lists) {
            let expected = Hook {
                path: format!("/{kind}").into(),
                args: vec![kind.into(), "x".into()],
                env: Some(vec![format!("K={kind}")]),
                timeout: Some(i),
            };
            assert_eq!(list, [expected]);
        }
    }

    #[test]
    fn six_kinds_in_order() {
        let spec = spec(json!({"hooks": {
            "prestart": [{"path": "/a"}],
            "createRuntime": [{"path": "/b", "args": [], "env": ["K=V"]}, {"path": "/c", "args": ["x", "y"]}],
            "createContainer": [{"path": "/d"}],
            "startContainer": [{"path": "/e"}],
            "poststart": [{"path": "/f", "timeout": 5}],
            "poststop": [{"path": "/g"}],
        }}));
        let hooks = good(|v| plan(&spec, Path::new("/bundle"), v));
        let hook = |path: &str, args: &[&str]| Hook {
            path: path.into(),
            args: args.iter().map(|a| a.to_string()).collect(),
            env: None,
            timeout: None,
        };
        assert_eq!(hooks.prestart, [hook("/a", &["/a"])]);
        let mut first = hook("/b", &["/b"]);
        first.env = Some(vec!["K=V".to_string()]);
        assert_eq!(hooks.create_runtime, [first, hook("/c", &["x", "y"])]);
        assert_eq!(hooks.create_container, [hook("/d", &["/d"])]);
        assert_eq!(hooks.start_container, [hook("/e", &["/e"])]);
        assert_eq!(hooks.poststart[0].timeout, Some(5));
        assert_eq!(hooks.poststop, [hook("/g", &["/g"])]);
    }

    #[test]
    fn those_that_run_in_the_bundle_may_be_relative_to_it() {
        let hook = json!([{"path": "bin/x", "timeout": 5_000_000_000u64}]);
        let config = spec(json!({"hooks": {"prestart": hook}}));
        let (hooks, warnings) = warned(|v| plan(&config, Path::new("/bundle"), v));
        assert_eq!(hooks.prestart[0].path, Path::new("/bundle/bin/x"));
        assert_eq!(hooks.prestart[0].args, ["bin/x"]);
        assert_eq!(hooks.prestart[0].timeout, Some(u32::MAX));
        assert_eq!(
            warnings,
            ["hooks.prestart[0].path: 'bin/x' is relative; it is taken from the bundle"]
        );
        let config = spec(
            json!({"hooks": {"startContainer": [{"path": "bin/x"}], "poststop": [{"path": ""}]}}),
        );
        assert_eq!(
            faults(|v| plan(&config, Path::new("/bundle"), v)),
            "hooks.startContainer[0].path: 'bin/x' is not an absolute path\n\
             hooks.poststop[0].path: '' is not an absolute path"
        );
    }

    #[test]
    fn bad_hooks_are_refused() {
        for (hook, fault) in [
            (
                json!({"path": "/x", "timeout": 0}),
                "hooks.poststop[0].timeout: 0 is not a number of seconds above 0; remove it for no limit",
            ),
            (
                json!({"path": "/x", "timeout": -1}),
                "hooks.poststop[0].timeout: -1 is not a number of seconds above 0; remove it for no limit",
            ),
            (
                json!({"path": "/x", "args": ["x", "\u{0}"]}),
                "hooks.poststop[0].args[1]: holds a NUL character; remove it",
            ),
        ] {
            let spec = spec(json!({"hooks": {"poststop": [hook]}}));
            assert_eq!(faults(|v| plan(&spec, Path::new("/bundle"), v)), fault);
        }
    }
}
