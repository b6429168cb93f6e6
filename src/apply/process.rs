//! The process's own attributes, in the order in which the kernel wants them.

use crate::plan::memory_policy::MemoryPolicy;
use crate::plan::process::{Capabilities, Process, Scheduler};
use crate::sys::errno::{EACCES, EINVAL, ENOENT, ENOSYS, ENOTDIR, EPERM};
use crate::sys::process::SchedAttr;
use crate::sys::{cap, errno_text, fs, process};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// What must be set before the process gives up the host's user namespace: the OOM killer's preference. Lowering it needs
/// CAP_SYS_RESOURCE there.
pub fn oom_score_adj(pid: i32, process: &Process) -> Result<()> {
    let Some(adj) = process.oom_score_adj else {
        return Ok(());
    };
    fs::write_at(
        fs::CWD,
        &*format!("/proc/{pid}/oom_score_adj"),
        adj.to_string().as_bytes(),
    )
    .with_context(|| format!("process.oomScoreAdj: set {adj}; lowering it needs CAP_SYS_RESOURCE"))
}

/// What the parent sets on the ready process by its pid, since it may need the host's privileges: scheduler, I/O priority, CPU
/// affinity.
pub fn from_outside(pid: i32, process: &Process, affinity: Option<&[u64]>) -> Result<()> {
    // husk's own affinity is inherited and may be narrower than the container's cpuset; the kernel cuts this mask to the cpuset
    let all = [u64::MAX; 128];
    let mask = affinity.unwrap_or(&all);
    process::sched_setaffinity(pid, mask)
        .or_else(|e| if affinity.is_none() { Ok(()) } else { Err(e) })
        .context("process.execCPUAffinity")?;
    if let Some(s) = &process.scheduler {
        process::sched_setattr(pid, &sched_attr(s)).map_err(|e| {
            let hint = if e.errno() == EPERM { "; process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)" } else { "" };
            anyhow!("process.scheduler: {e}{hint}")
        })?;
    }
    if let Some((class, level)) = process.io_priority {
        process::ioprio_set(pid, class, level).context("process.ioPriority")?;
    }
    Ok(())
}

/// Where the memory of the calling process and of its children comes from.
pub fn memory_policy(policy: &MemoryPolicy) -> Result<()> {
    process::set_mempolicy(policy.mode, &policy.nodes).map_err(|e| {
        let hint = match e.errno() {
            ENOSYS => ", and NUMA nodes for a memory policy",
            EINVAL => "; it wants a node that the host and linux.resources.cpu.mems have, and flags that go with the mode",
            _ => "",
        };
        anyhow!("linux.memoryPolicy: {e}{hint}")
    })
}

/// Sets the limits of a process, 0 for the caller: as late as can be, so that a small one does not hinder the set-up, but before the
/// process changes its user, which takes the right to it from the parent and from itself.
pub fn rlimits(pid: i32, process: &Process) -> Result<()> {
    for r in &process.rlimits {
        process::prlimit(pid, r.resource, r.soft, r.hard).with_context(|| {
            format!(
                "process.rlimits: set {}; raising a hard limit needs CAP_SYS_RESOURCE",
                r.name
            )
        })?;
    }
    Ok(())
}

fn sched_attr(s: &Scheduler) -> SchedAttr {
    SchedAttr {
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
        ..Default::default()
    }
}

/// A session keyring of the container's own, named as runc names it, that `exec` joins too.
pub fn join_keyring(id: &str, user_namespace: bool) -> Result<()> {
    const SEARCH_BY_OTHERS: u32 = 0x8;
    const SEARCH_BY_OWNER: u32 = 0x8_0000;
    let name = CString::new(format!("_ses.{id}"))?;
    let key = match process::join_session_keyring(&name) {
        Err(e) if e.errno() == ENOSYS => return Ok(()),
        r => r.context("make a session keyring; where the user's key quota is used up, --no-new-keyring does without")?,
    };
    // the key's owner as the container sees it may be nobody known, so that other must be able to search
    let extra = if user_namespace {
        SEARCH_BY_OTHERS
    } else {
        SEARCH_BY_OWNER
    };
    let perm = process::key_describe(key)?
        .split(';')
        .nth(3)
        .and_then(|p| u32::from_str_radix(p, 16).ok());
    let Some(perm) = perm else {
        bail!("the kernel describes the session keyring in an unknown way")
    };
    process::key_set_permissions(key, perm | extra)
        .context("let the container search its session keyring")
}

/// Capabilities that the plan asks for and husk does not have cannot be given: they are left out, by name.
pub struct Granted {
    sets: Capabilities,
    /// husk's own, permitted.
    available: u64,
    /// Asked for but not to be had.
    pub missing: u64,
}

/// Cuts the sets to what this process may give, and drops the rest of the bounding set.
pub fn bound(process: &Process) -> Result<Granted> {
    let want = process.capabilities.unwrap_or_default();
    let have = cap::get().context("read capabilities")?;
    let last = cap::last();
    for c in (0..=last).filter(|c| want.bounding & (1 << c) == 0) {
        // without CAP_SETPCAP nothing can be dropped, but then nothing is there to drop either
        cap::drop_bounding(c)
            .or_else(|e| {
                if e.errno() == EPERM && have.permitted == 0 {
                    Ok(())
                } else {
                    Err(e)
                }
            })
            .context("process.capabilities.bounding")?;
    }
    let sets = Capabilities {
        bounding: want.bounding,
        effective: want.effective & have.permitted,
        permitted: want.permitted & have.permitted,
        inheritable: want.inheritable & (have.permitted | have.inheritable),
        ambient: want.ambient & want.permitted & want.inheritable & have.permitted,
    };
    let missing = (want.effective | want.permitted | want.inheritable) & !have.permitted;
    Ok(Granted {
        sets,
        available: have.permitted,
        missing,
    })
}

/// Gives the standard streams to the container's user, so that it can open /dev/stdout again; /dev/null is everybody's
/// (CVE-2026-88265). Ids that the user namespace does not map and read-only places are left as they are.
pub fn own_stdio(uid: u32) -> Result<()> {
    use crate::sys::errno::EROFS;
    for fd in [0, 1, 2].map(fs::standard) {
        let Ok(stat) = fs::fstat(fd) else { continue };
        let null = stat.kind() == fs::S_IFCHR && fs::major_minor(stat.rdev) == (1, 3);
        if stat.uid == uid || null {
            continue;
        }
        match fs::chownat(fd, c"", uid, u32::MAX) {
            Err(e) if ![EINVAL, EPERM, EROFS].contains(&e.errno()) => {
                return Err(e).context("give the standard streams to process.user.uid");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Becomes the process's user, keeping the permitted capabilities until [`capabilities`] cuts them.
pub fn user(process: &Process, setgroups_denied: bool) -> Result<()> {
    // only who stops being root loses them (capabilities(7))
    let loses = process.uid != 0;
    if loses {
        process::set_keep_caps(true)?;
    }
    let kept = process.keep_groups || setgroups_denied && process.groups.is_empty();
    if !kept {
        process::setgroups(&process.groups).context("process.user.additionalGids")?;
    }
    process::setresgid(process.gid).context("process.user.gid; it must be in linux.gidMappings")?;
    process::setresuid(process.uid).context("process.user.uid; it must be in linux.uidMappings")?;
    if loses {
        process::set_keep_caps(false)?;
    }
    process::umask(process.umask);
    Ok(())
}

/// Sets the capability sets for good, but for `kept`, which stay permitted until execve.
pub fn capabilities(granted: &Granted, kept: u64) -> Result<()> {
    let s = &granted.sets;
    cap::set(&cap::Sets {
        effective: s.effective,
        permitted: s.permitted | kept & granted.available,
        inheritable: s.inheritable,
    })
    .context("process.capabilities")?;
    // what is not inheritable is not ambient any more
    if s.inheritable == 0 && s.ambient == 0 {
        return Ok(());
    }
    cap::set_ambient(s.ambient).context("process.capabilities.ambient")
}

/// Names of the capabilities in a mask, for a warning.
pub fn names(mask: u64) -> String {
    let list: Vec<String> = caps::all()
        .into_iter()
        .filter(|c| mask & c.bitmask() != 0)
        .map(|c| c.to_string())
        .collect();
    list.join(", ")
}

/// The environment as execve gets it: of several entries with one name the last, and HOME from the container's passwd where
/// the config leaves it unset or empty.
pub fn environment(process: &Process) -> Result<Vec<CString>> {
    fn name(entry: &CStr) -> &[u8] {
        entry
            .to_bytes()
            .split(|b| *b == b'=')
            .next()
            .unwrap_or_default()
    }
    let last: HashMap<&[u8], usize> = process
        .env
        .iter()
        .enumerate()
        .map(|(i, e)| (name(e), i))
        .collect();
    let is_last = |(i, e): &(usize, &CString)| last[name(e)] == *i;
    let mut env: Vec<CString> = process
        .env
        .iter()
        .enumerate()
        .filter(is_last)
        .map(|(_, e)| e.clone())
        .collect();
    if !env
        .iter()
        .any(|e| name(e) == b"HOME" && e.to_bytes().len() > b"HOME=".len())
    {
        env.retain(|e| name(e) != b"HOME");
        env.push(CString::new([b"HOME=", &home(process.uid)[..]].concat())?);
    }
    Ok(env)
}

/// The home of a user in /etc/passwd, "/" if there is none. The file is the image's: only a regular one is read, and not without end.
fn home(uid: u32) -> Vec<u8> {
    const LIMIT: i64 = 1 << 20;
    let read = || -> crate::sys::Result<Vec<u8>> {
        let fd = fs::openat2(
            fs::CWD,
            c"/etc/passwd",
            fs::O_RDONLY | fs::O_NONBLOCK | fs::O_NOCTTY,
            0,
            fs::RESOLVE_NO_MAGICLINKS,
        )?;
        let stat = fs::fstat(fd.as_fd())?;
        if stat.kind() != fs::S_IFREG || stat.size > LIMIT {
            Ok(Vec::new())
        } else {
            fs::read_all(fd.as_fd())
        }
    };
    let passwd = read().unwrap_or_default();
    let fields = |line: &[u8]| {
        line.split(|b| *b == b':')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let entry = passwd
        .split(|b| *b == b'\n')
        .map(fields)
        .find(|f| f.len() >= 6 && f[2] == uid.to_string().as_bytes());
    entry
        .map(|f| f[5].clone())
        .filter(|h| !h.is_empty() && !h.contains(&0))
        .unwrap_or_else(|| b"/".to_vec())
}

/// Goes to the working directory and proves that it is inside the container's root (CVE-2024-21626: a
/// working directory such as /proc/self/fd/7 would lead to what husk has open of the host).
pub fn working_directory(cwd: &CStr) -> Result<()> {
    fs::chdir(cwd).context("process.cwd")?;
    let real = fs::getcwd().context("process.cwd")?;
    if !real.as_bytes().starts_with(b"/") {
        bail!(
            "process.cwd: '{}' is outside the container's root",
            cwd.to_string_lossy()
        );
    }
    Ok(())
}

/// The file that execve will run: the first argument, looked up in the container's PATH unless it has a slash.
///
/// The wording follows Go's exec package, which engines know: Docker turns it into exit code 127 or 126.
pub fn executable(process: &Process, env: &[CString]) -> Result<CString> {
    let name = process.args[0].to_bytes();
    let quoted = || format!("exec: {:?}", OsStr::from_bytes(name));
    if name.contains(&b'/') {
        return match check(&process.args[0]) {
            Ok(()) => Ok(process.args[0].clone()),
            Err(e) => Err(anyhow!("{}: {}", quoted(), errno_text(e.errno()))),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|e| e.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or_default();
    let mut denied = None;
    for dir in path.split(|b| *b == b':').filter(|_| !name.is_empty()) {
        let dir = if dir.is_empty() { b"." } else { dir };
        let file = CString::new([dir, b"/", name].concat())?;
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(e) if e.errno() == ENOENT || e.errno() == ENOTDIR => {}
            Err(e) => denied = denied.or(Some(e)),
        }
    }
    match denied {
        Some(e) => bail!("{}: {e}", quoted()),
        None => bail!(
            "{}: executable file not found in $PATH; check process.args[0] and PATH in process.env",
            quoted()
        ),
    }
}

/// Whether a file can be executed by this process.
fn check(file: &CStr) -> crate::sys::Result<()> {
    let denied = |errno| crate::sys::Error::new(file.to_string_lossy(), errno);
    let stat = fs::stat(file)?;
    if stat.is_dir() {
        return Err(denied(crate::sys::errno::EISDIR));
    }
    if stat.mode & 0o111 == 0 {
        return Err(denied(EACCES));
    }
    fs::may_execute(file).map_err(|e| denied(e.errno()))
}
