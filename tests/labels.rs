//! The Linux security modules: apparmorProfile, selinuxLabel, mountLabel, and the options of exec for them.

use crate::support::*;

tests![
    apparmor_profile,
    apparmor_profile_of_exec,
    apparmor_profile_of_a_user,
    apparmor_profile_with_procfs_covered,
    apparmor_unknown_is_refused,
    apparmor_without_it_is_refused,
    selinux_without_it_is_refused,
];

/// A profile that allows all but to read /etc/passwd; gone with this value.
struct Profile(String);

impl Profile {
    fn load() -> Profile {
        needs(&[AppArmor]);
        let name = format!("{}husk", process::id_prefix());
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus, deny /etc/passwd rw,";
        let text =
            format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n");
        std::fs::write("profile", text).unwrap();
        Profile::parser("-r");
        Profile(name)
    }

    fn parser(action: &str) {
        Cmd::new("apparmor_parser")
            .args([action, "-K", "profile"])
            .run()
            .ok();
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)", self.0)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        Profile::parser("-R");
    }
}

const LOOK: [&str; 5] = ["cat", "/proc/self/attr/current", ";", "cat", "/etc/passwd"];

fn apparmor_profile() {
    let profile = Profile::load();
    let b = Bundle::new().payload(&LOOK);
    let o = b.run().ok();
    assert_eq!(o.lines()[0], "unconfined");
    let b = b.set("/process/apparmorProfile", json!(profile.0));
    assert_eq!(
        b.run().exits(1).lines(),
        [&profile.enforced(), "error EACCES"]
    );
    // with new privileges too
    let b = b.set("/process/noNewPrivileges", json!(false));
    assert_eq!(
        b.run().exits(1).lines(),
        [&profile.enforced(), "error EACCES"]
    );
}

fn apparmor_profile_of_exec() {
    let profile = Profile::load();
    let c = Bundle::new()
        .set("/process/apparmorProfile", json!(profile.0))
        .start();
    assert_eq!(c.exec(&[], &LOOK).exits(1).lines()[0], profile.enforced());
    let o = c.exec(&["--apparmor", "unconfined"], &LOOK).ok();
    assert_eq!(o.lines()[0], "unconfined");
    let plain = Bundle::new().start();
    assert_eq!(plain.exec(&[], &LOOK).ok().lines()[0], "unconfined");
    let o = plain.exec(&["--apparmor", &profile.0], &LOOK).exits(1);
    assert_eq!(o.lines(), [&profile.enforced(), "error EACCES"]);
    // by a file that says nothing of it, and by one that does
    let mut p =
        json!({"user": {}, "cwd": "/", "args": ["/bin/payload", "cat", "/proc/self/attr/current"]});
    std::fs::write("process.json", p.to_string()).unwrap();
    let by_file = |c: &Container| c.exec_by_file("process.json");
    // with runc such a process leaves the container's profile
    if is_husk() {
        assert_eq!(by_file(&c).ok().line(), profile.enforced());
    }
    assert_eq!(by_file(&plain).ok().line(), "unconfined");
    p["apparmorProfile"] = json!(profile.0);
    std::fs::write("process.json", p.to_string()).unwrap();
    assert_eq!(by_file(&plain).ok().line(), profile.enforced());
    let o = plain.exec(&["--apparmor", "nobody-loaded-this"], &["true"]);
    o.fails(255, &["apparmor failed to apply profile"]);
}

fn apparmor_profile_of_a_user() {
    let profile = Profile::load();
    let b = Bundle::new()
        .payload(&LOOK)
        .set("/process/apparmorProfile", json!(profile.0))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(b.run().exits(1).lines()[0], profile.enforced());
    let c = b.payload(&["wait"]).user_namespace(100_000).start();
    assert_eq!(c.exec(&[], &LOOK).exits(1).lines()[0], profile.enforced());
}

/// CVE-2019-16884: what a volume puts over the attributes does not take the profile.
fn apparmor_profile_with_procfs_covered() {
    runc_fails("it needs a procfs in the container");
    let profile = Profile::load();
    let b = Bundle::new()
        .payload(&["true"])
        .set("/process/apparmorProfile", json!(profile.0));
    b.clone().without_mount("/proc").run().ok();
    std::fs::create_dir_all("fake/self/attr/apparmor").unwrap();
    std::fs::write("fake/self/attr/apparmor/exec", "").unwrap();
    std::fs::write("fake/self/attr/exec", "").unwrap();
    let b = b.without_mount("/proc").bind("fake", "/proc", &["rw"]);
    assert_ne!(b.run().code, 0);
    for file in ["fake/self/attr/apparmor/exec", "fake/self/attr/exec"] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "", "{file}");
    }
}

fn apparmor_unknown_is_refused() {
    needs(&[AppArmor]);
    let b = Bundle::new().set("/process/apparmorProfile", json!("nobody-loaded-this"));
    let o = b.refused(&["apparmor", "no such file or directory"]);
    assert!(
        !is_husk() || o.err.contains("nobody-loaded-this"),
        "the profile has a name: {o}"
    );
}

fn apparmor_without_it_is_refused() {
    if needs::has_apparmor() {
        skip("this host has AppArmor");
    }
    let b = Bundle::new().set("/process/apparmorProfile", json!("docker-default"));
    b.refused(&["apparmor"]);
    let c = Bundle::new().start();
    let o = c.exec(&["--apparmor", "docker-default"], &["true"]);
    o.fails(255, &["apparmor"]);
    // an empty one is none
    let b = b.set("/process/apparmorProfile", json!(""));
    b.payload(&["true"]).run().ok();
}

fn selinux_without_it_is_refused() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip("this host has SELinux");
    }
    let words = "selinux label is specified in config, but selinux is disabled or not supported";
    let label = "system_u:system_r:container_t:s0:c4,c5";
    let b = Bundle::new().set("/process/selinuxLabel", json!(label));
    b.refused(&[words]);
    if is_husk() {
        // runc has an EINVAL of the kernel's for the first tmpfs
        let b = Bundle::new().set("/linux/mountLabel", json!(label));
        b.refused(&["linux.mountLabel", words]);
    }
    let c = Bundle::new().start();
    let o = c.exec(&["--process-label", label], &["true"]);
    o.fails(255, &["selinux"]);
    let b = Bundle::new()
        .set("/process/selinuxLabel", json!(""))
        .set("/linux/mountLabel", json!(""));
    b.payload(&["true"]).run().ok();
}
