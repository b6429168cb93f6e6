//! What a test left behind: mounts, cgroups, processes, files of the state directory.

use super::mountinfo;
use super::process::{cgroup, dir, id_prefix};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Before {
    mounts: Vec<String>,
}

impl Before {
    pub fn now() -> Before {
        Before {
            mounts: mountinfo::read().into_iter().map(|m| m.target).collect(),
        }
    }

    /// What is there now and was not; it is removed.
    pub fn leaks(self) -> Vec<String> {
        let mut found = Vec::new();
        // those that are about to end may do so
        let end = Instant::now() + Duration::from_secs(2);
        while !offspring().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        for pid in offspring() {
            found.push(format!("process {}", describe(pid)));
        }
        for _ in 0..100 {
            let left = offspring();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }

        let mut before = self.mounts;
        for m in mountinfo::read().into_iter().rev() {
            if let Some(i) = before.iter().position(|b| *b == m.target) {
                before.swap_remove(i);
                continue;
            }
            found.push(format!(
                "mount {} ({} from {})",
                m.target, m.fstype, m.source
            ));
            let _ = nix::mount::umount2(m.target.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }

        let root = Path::new("/sys/fs/cgroup");
        let own = root.join(cgroup());
        let scope = format!("t-{}", id_prefix());
        let slice = root.join("system.slice");
        for (parent, ours) in [
            (own.as_path(), ""),
            (root, id_prefix()),
            (&slice, scope.as_str()),
        ] {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == "harness" || !name.starts_with(ours) || !entry.path().is_dir() {
                    continue;
                }
                found.push(format!("cgroup {}", entry.path().display()));
                remove_cgroup(&entry.path());
            }
        }

        for entry in fs::read_dir(dir().join("state"))
            .into_iter()
            .flatten()
            .flatten()
        {
            found.push(format!("state {}", entry.path().display()));
        }
        found
    }
}

/// All processes below this one, children first; zombies are not processes any more.
pub fn offspring() -> Vec<i32> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Some((state, ppid)) = stat(pid) else {
            continue;
        };
        all.push((pid, ppid, state));
    }
    let mut found = vec![std::process::id() as i32];
    let mut i = 0;
    while i < found.len() {
        let parent = found[i];
        found.extend(all.iter().filter(|p| p.1 == parent).map(|p| p.0));
        i += 1;
    }
    found.remove(0);
    found.retain(|pid| all.iter().any(|p| p.0 == *pid && p.2 != 'Z' && p.2 != 'X'));
    found
}

fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in the parentheses may hold anything
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

pub fn describe(pid: i32) -> String {
    let read = |f: &str| fs::read_to_string(format!("/proc/{pid}/{f}")).unwrap_or_default();
    let cmdline = read("cmdline").replace('\0', " ");
    let state = stat(pid).map_or('?', |s| s.0);
    format!(
        "{pid} [{}] {state} in {} `{}`",
        read("comm").trim_end(),
        match read("wchan").as_str() {
            "" | "0" => "user space",
            w => w,
        },
        cmdline.trim_end()
    )
}

/// Ends what is in a cgroup and removes it with those below it.
pub fn remove_cgroup(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
