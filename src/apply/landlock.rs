//! Landlock rules: made while husk may still look at every path, laid upon the process just before its filter.

use crate::log;
use crate::plan::landlock::{Landlock, OF_FILES};
use crate::sys::errno::ENOENT;
use crate::sys::{fs, landlock};
use anyhow::{Context, Result, anyhow};
use std::os::fd::{AsFd, OwnedFd};

/// The ruleset; None where a kernel that has nothing of it is good enough.
pub fn ready(plan: &Landlock) -> Result<Option<OwnedFd>> {
    let handled = plan
        .handled(landlock::version())
        .map_err(|e| anyhow!("annotations: dev.husk.landlock: {e}"))?;
    let ruleset = landlock::Ruleset {
        fs: handled.fs,
        net: handled.net,
        scoped: handled.scoped,
    };
    if (ruleset.fs, ruleset.net, ruleset.scoped) == (0, 0, 0) {
        log::warn("annotations: dev.husk.landlock: this kernel has none of it");
        return Ok(None);
    }
    let made = landlock::create(&ruleset)?;
    for (path, access) in &plan.paths {
        let at = || {
            format!(
                "annotations: dev.husk.landlock: '{}'",
                path.to_string_lossy()
            )
        };
        let parent = match fs::open(path.as_c_str(), fs::O_PATH, 0) {
            Err(e) if e.errno() == ENOENT && plan.best_effort => continue,
            opened => opened.with_context(at)?,
        };
        let mut access = access & ruleset.fs;
        if fs::fstat(parent.as_fd())?.mode & fs::S_IFMT != fs::S_IFDIR {
            access &= OF_FILES;
        }
        if access != 0 {
            landlock::allow_beneath(made.as_fd(), parent.as_fd(), access).with_context(at)?;
        }
    }
    for &(port, access) in &plan.ports {
        if access & ruleset.net != 0 {
            landlock::allow_port(made.as_fd(), port, access)?;
        }
    }
    Ok(Some(made))
}

/// For good, and for all that comes of this process.
pub fn restrict(ruleset: &OwnedFd) -> Result<()> {
    landlock::restrict_self(ruleset.as_fd()).context("annotations: dev.husk.landlock")
}
