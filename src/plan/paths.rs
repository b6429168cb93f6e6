//! linux.maskedPaths and linux.readonlyPaths; and paths in general.

use super::Violations;
use super::namespaces::{Kind, Namespaces};
use oci_spec::runtime::Spec;
use std::path::{Component, Path, PathBuf};

/// Masked, then read-only paths, each once.
pub fn plan(
    spec: &Spec,
    namespaces: &Namespaces,
    v: &mut Violations,
) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let linux = spec.linux().as_ref();
    let masked = linux.and_then(|l| l.masked_paths().as_ref());
    let readonly = linux.and_then(|l| l.readonly_paths().as_ref());
    (
        list(masked, "linux.maskedPaths", namespaces, v),
        list(readonly, "linux.readonlyPaths", namespaces, v),
    )
}

fn list(
    paths: Option<&Vec<String>>,
    at: &str,
    namespaces: &Namespaces,
    v: &mut Violations,
) -> Vec<PathBuf> {
    let paths = paths.map(Vec::as_slice).unwrap_or_default();
    if !paths.is_empty() && namespaces.is_host(Kind::Mount) {
        v.add(
            at,
            "would hide files of the whole host; add {\"type\": \"mount\"} to linux.namespaces",
        );
    }
    let mut list: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for (i, path) in paths.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if path.is_empty() {
            v.warn(&at, "is empty, and ignored");
            continue;
        }
        v.cstring(&at, path);
        let path = Path::new("/").join(path); // as runc takes relative ones, without a word
        if !list.contains(&path) {
            list.push(path);
        }
    }
    list
}

/// Joins a path of the config to the bundle, unless it is absolute.
pub(crate) fn in_bundle(bundle: &Path, path: &Path) -> PathBuf {
    // collecting the components drops "." and doubled slashes
    bundle.join(path).components().collect()
}

/// A path of the container's, taken from its root, with "." and ".." resolved by name. For comparisons only: the kernel resolves
/// ".." after symlinks.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::json;

    fn run(spec: &Spec, v: &mut Violations) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let n = namespaces::plan(spec, &root(), v);
        plan(spec, &n, v)
    }

    #[test]
    fn each_path_once() {
        let spec = linux(json!({
            "maskedPaths": ["/proc/kcore", "/sys/firmware", "/proc/kcore/"],
            "readonlyPaths": ["/proc/sys"],
        }));
        let (masked, readonly) = good(|v| run(&spec, v));
        assert_eq!(masked, ["/proc/kcore", "/sys/firmware"].map(PathBuf::from));
        assert_eq!(readonly, [PathBuf::from("/proc/sys")]);
        let none = good(|v| run(&linux(json!({})), v));
        assert_eq!(none, (Vec::new(), Vec::new()));
    }

    #[test]
    fn relative_paths_start_at_the_root() {
        let spec = linux(json!({"maskedPaths": ["/a", "b", "a"], "readonlyPaths": [""]}));
        let ((masked, readonly), warnings) = warned(|v| run(&spec, v));
        assert_eq!(masked, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(readonly, Vec::<PathBuf>::new());
        assert_eq!(warnings, ["linux.readonlyPaths[0]: is empty, and ignored"]);
    }

    #[test]
    fn bad_paths_are_refused() {
        let null = linux(json!({"readonlyPaths": ["/a", "/\u{0}"]}));
        assert_eq!(
            faults(|v| run(&null, v)),
            "linux.readonlyPaths[1]: holds a NUL character; remove it"
        );
        let shared = linux(json!({"namespaces": [], "readonlyPaths": ["/a"], "maskedPaths": []}));
        assert_eq!(
            faults(|v| run(&shared, v)),
            "linux.readonlyPaths: would hide files of the whole host; add {\"type\": \"mount\"} to linux.namespaces"
        );
    }

    #[test]
    fn paths_are_cleaned_by_name() {
        for (path, cleaned) in [
            ("/", "/"),
            ("", "/"),
            ("/dev/", "/dev"),
            ("dev/./pts//x", "/dev/pts/x"),
            ("/a/../../b", "/b"),
            ("/proc/..", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
        }
        for (path, joined) in [
            (".", "/b"),
            ("rootfs/", "/b/rootfs"),
            ("/x", "/x"),
            ("../x", "/b/../x"),
        ] {
            let result = in_bundle(Path::new("/b"), Path::new(path));
            assert_eq!(result, Path::new(joined), "{path}");
        }
    }
}
