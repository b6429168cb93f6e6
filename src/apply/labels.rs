//! The labels of the Linux security modules: the AppArmor profile and the SELinux context of the process, and of its keys.

use crate::root::Proc;
use crate::sys::errno::{EINVAL, ENOENT};
use crate::sys::fs;
use anyhow::{Context, Result, anyhow, bail};
use std::path::Path;

/// The AppArmor profile from the next execve on (aa_change_onexec(2)).
pub fn apparmor(profile: &str) -> Result<()> {
    // since Linux 5.1 beside the attributes of another security module, before that in their place
    let files = ["attr/apparmor/exec", "attr/exec"];
    set_exec_profile(&own_proc()?, &files, profile).map_err(|e| {
        anyhow!("apparmor failed to apply profile '{profile}': {e:#}; load it with apparmor_parser")
    })
}

/// The SELinux context from the next execve on.
pub fn selinux(label: &str) -> Result<()> {
    set(&own_proc()?, "attr/exec", label)
        .with_context(|| format!("can't set process label '{label}'"))
}

/// The SELinux context of the keys that this process makes.
pub fn selinux_keys(label: &str) -> Result<()> {
    set(&own_proc()?, "attr/keycreate", label)
        .with_context(|| format!("can't set the label of the session keyring to '{label}'"))
}

/// The procfs on /proc, which may be the container's to change: files are written through its root, and nothing that covers one is
/// followed (CVE-2019-16884, CVE-2025-52881). Where there is none, one that is mounted nowhere.
fn own_proc() -> Result<Proc> {
    match fs::open("/proc", fs::O_PATH | fs::O_DIRECTORY, 0) {
        Ok(fd) => Proc::new(fd).or_else(|_| Proc::private()),
        Err(_) => Proc::private(),
    }
    .context("find a procfs for the label of the process; mount one on /proc")
}

fn set_exec_profile(proc: &Proc, files: &[&str], profile: &str) -> Result<()> {
    let command = format!("exec {profile}");
    for file in files {
        let path = Path::new("self").join(file);
        match proc.write(&path, command.as_bytes()) {
            Err(e) if e.errno() == ENOENT && proc.open(&path, fs::O_PATH).is_err() => continue,
            written => written?,
        }
        let found = read(proc, &path)?;
        // "docker-default (enforce)"
        let name = found.rsplit_once(" (").map_or(&*found, |(name, _)| name);
        // a namespace or a stack is told in another form than it is given
        let plain = !profile.contains([':', '&']);
        if name.is_empty() || plain && name != profile {
            bail!("the kernel took it for '{found}'");
        }
        return Ok(());
    }
    bail!("the kernel has no attribute for it")
}

/// Writes an attribute, and makes sure that the kernel has taken it.
fn set(proc: &Proc, file: &str, label: &str) -> Result<()> {
    let path = Path::new("self").join(file);
    proc.write(&path, label.as_bytes())
        .map_err(|e| match e.errno() {
            EINVAL => anyhow!("{e}; the policy of this host has no such label"),
            _ => e.into(),
        })?;
    let found = read(proc, &path)?;
    if found != label {
        bail!("the kernel took it for '{found}'");
    }
    Ok(())
}

fn read(proc: &Proc, path: &Path) -> Result<String> {
    let text = proc.read(path).context("read the label back")?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.trim_end_matches(['\n', '\0']).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_to_string, write};

    /// A tree like that of a process's attributes, whose files keep what is written.
    fn tree(files: &[&str]) -> (tempfile::TempDir, Proc) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join("self").join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, "").unwrap();
        }
        let fd = fs::open(dir.path(), fs::O_PATH | fs::O_DIRECTORY, 0).unwrap();
        (dir, Proc::of_a_tree(fd))
    }

    const FILES: [&str; 2] = ["attr/apparmor/exec", "attr/exec"];

    #[test]
    fn a_profile_goes_where_the_kernel_has_it() {
        for files in [&FILES[..], &FILES[1..]] {
            let (dir, proc) = tree(files);
            // a file gives back the command, which the kernel does not
            let e = set_exec_profile(&proc, &FILES, "web").unwrap_err();
            assert_eq!(e.to_string(), "the kernel took it for 'exec web'");
            let text = read_to_string(dir.path().join("self").join(files[0])).unwrap();
            assert_eq!(text, "exec web");
            for other in &files[1..] {
                let text = read_to_string(dir.path().join("self").join(other)).unwrap();
                assert_eq!(text, "");
            }
        }
        let (_dir, proc) = tree(&["attr/current"]);
        let e = set_exec_profile(&proc, &FILES, "web").unwrap_err();
        assert_eq!(e.to_string(), "the kernel has no attribute for it");
    }

    #[test]
    fn a_label_is_written_and_read_back() {
        let (dir, proc) = tree(&["attr/exec"]);
        let label = "system_u:system_r:container_t:s0:c4,c5";
        set(&proc, "attr/exec", label).unwrap();
        let text = read_to_string(dir.path().join("self/attr/exec")).unwrap();
        assert_eq!(text, label);
        // what is longer than it was written is another one
        write(dir.path().join("self/attr/exec"), "x".repeat(99)).unwrap();
        let e = set(&proc, "attr/exec", label).unwrap_err();
        assert!(e.to_string().starts_with("the kernel took it for"), "{e}");
        let e = set(&proc, "attr/keycreate", label).unwrap_err();
        assert!(e.to_string().ends_with("no such file or directory"), "{e}");
    }

    /// As somebody would lead the write elsewhere who can mount over the container's /proc.
    #[test]
    fn nothing_is_followed_out_of_the_tree() {
        let (dir, proc) = tree(&["attr/current"]);
        let elsewhere = dir.path().join("elsewhere");
        write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("self/attr/exec")).unwrap();
        assert!(set(&proc, "attr/exec", "x").is_err());
        assert_eq!(read_to_string(&elsewhere).unwrap(), "");
    }
}
