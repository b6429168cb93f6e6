//! husk's own annotations. Every other one is somebody else's and passed on.
//!
//! | annotation                 | meaning                                                                                |
//! |----------------------------|----------------------------------------------------------------------------------------|
//! | `dev.husk.overlay.lower`   | layers of an overlay to mount on root.path, colon separated, topmost first; `\:` is a colon |
//! | `dev.husk.overlay.upper`   | the writable layer                                                                     |
//! | `dev.husk.overlay.work`    | overlayfs's work directory, on the same file system as upper                            |
//! | `dev.husk.overlay.tmpfs`   | a throw-away writable layer instead: `true`, or its largest size as tmpfs(5) takes it   |
//!
//! Relative paths start at the bundle. Without upper and tmpfs the root is read-only. [`super::rootfs`] makes the plan.

use super::Violations;
use oci_spec::runtime::Spec;

pub const OVERLAY_LOWER: &str = "dev.husk.overlay.lower";
pub const OVERLAY_UPPER: &str = "dev.husk.overlay.upper";
pub const OVERLAY_WORK: &str = "dev.husk.overlay.work";
pub const OVERLAY_TMPFS: &str = "dev.husk.overlay.tmpfs";

/// husk's own annotations.
pub const KNOWN: [&str; 4] = [OVERLAY_LOWER, OVERLAY_UPPER, OVERLAY_WORK, OVERLAY_TMPFS];

/// The value of an annotation.
pub fn get<'a>(spec: &'a Spec, key: &str) -> Option<&'a String> {
    spec.annotations().as_ref()?.get(key)
}

/// The JSON path of an annotation.
pub fn path(key: &str) -> String {
    format!("annotations[\"{key}\"]")
}

/// Refuses what looks like husk's and is not: a misspelt annotation would silently do nothing.
pub fn check(spec: &Spec, v: &mut Violations) {
    let mut keys: Vec<&String> = spec.annotations().iter().flat_map(|a| a.keys()).collect();
    keys.sort();
    for key in keys {
        if key.is_empty() {
            v.add("annotations", "has an empty key; name it");
        } else if key.starts_with("dev.husk.") && !KNOWN.contains(&key.as_str()) {
            v.add(
                path(key),
                format!("is none of husk's annotations; use {}", KNOWN.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn only_misspelt_ones_of_husk_are_refused() {
        good(|v| check(&spec(json!({})), v));
        let fine =
            json!({"com.example.key": "", "dev.huskies": "1", "dev.husk.overlay.tmpfs": "true"});
        good(|v| check(&spec(json!({"annotations": fine})), v));
        let bad = json!({"dev.husk.overlay.uper": "x", "": "y"});
        assert_eq!(
            faults(|v| check(&spec(json!({"annotations": bad})), v)),
            "annotations: has an empty key; name it\n\
             annotations[\"dev.husk.overlay.uper\"]: is none of husk's annotations; use dev.husk.overlay.lower, \
             dev.husk.overlay.upper, dev.husk.overlay.work, dev.husk.overlay.tmpfs"
        );
    }
}
