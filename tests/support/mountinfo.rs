//! proc_pid_mountinfo(5).

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    pub dev: String,
    pub root: String,
    pub target: String,
    /// Of the mount: "ro", "nosuid" …
    pub options: Vec<String>,
    /// "shared:1", "master:2", "unbindable"
    pub propagation: Vec<String>,
    pub fstype: String,
    pub source: String,
    /// Of the file system.
    pub super_options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|o| o == option)
    }

    pub fn shared(&self) -> bool {
        self.propagation.iter().any(|p| p.starts_with("shared:"))
    }

    pub fn slave(&self) -> bool {
        self.propagation.iter().any(|p| p.starts_with("master:"))
    }
}

/// The mounts of this process.
pub fn read() -> Vec<Mount> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"))
}

/// Lines that are no mounts, such as other output of a payload, are left out.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// The mount that is seen at a path: the last one there.
pub fn at<'a>(mounts: &'a [Mount], target: &str) -> Option<&'a Mount> {
    mounts.iter().rfind(|m| m.target == target)
}

fn line(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ');
    let list = |s: &str| s.split(',').map(str::to_string).collect();
    let id = front.next()?.parse().ok()?;
    let dev = front.nth(1)?.to_string();
    let root = unescape(front.next()?);
    let target = unescape(front.next()?);
    let options = list(front.next()?);
    let propagation = front.map(str::to_string).collect();
    let mut back = back.split(' ');
    Some(Mount {
        id,
        dev,
        root,
        target,
        options,
        propagation,
        fstype: back.next()?.to_string(),
        source: unescape(back.next()?),
        super_options: list(back.next()?),
    })
}

fn unescape(s: &str) -> String {
    s.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

/// Unmounts when dropped.
pub struct Unmount(pub std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
