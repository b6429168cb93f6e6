//! linux.netDevices: interfaces that become the container's. The host is a network namespace of the test's own.

use crate::support::*;
use nix::sched::{CloneFlags, unshare};

tests![
    moved_with_what_it_has,
    moved_into_a_user_namespace,
    joined_namespace_keeps_it,
    renamed,
    renamed_by_a_template,
    name_taken_is_refused,
    missing_is_refused,
    names_are_checked,
    needs_a_network_namespace,
    own_namespace_is_refused,
    put_back_after_a_failure,
];

const MAC: &str = "02:11:22:33:44:55";

/// Commands of ip(8), in this order.
fn ip(commands: &[&str]) {
    for command in commands {
        Cmd::new("ip").args(command.split(' ')).run().ok();
    }
}

/// A host with an interface "dev0" that has a peer, which stays.
fn host() {
    runc_since(1, 4);
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    ip(&[
        "link add dev0 type veth peer name peer0",
        "link set dev0 address 02:11:22:33:44:55 mtu 1789",
        "addr add 169.254.169.77/32 dev dev0",
        "addr add 10.9.8.7/24 brd 10.9.8.255 dev dev0",
        "addr add fd00:1::5/64 dev dev0 nodad",
        "addr add 127.0.0.33/8 scope host dev dev0",
        "link set peer0 up",
        "link set dev0 up",
    ]);
}

/// An interface as ip(8) tells it, seen from a process.
fn seen(pid: i32, name: &str) -> Value {
    let pid = pid.to_string();
    let o = Cmd::new("nsenter")
        .args(["-t", &pid, "-n", "ip", "-j", "addr", "show", "dev", name])
        .run()
        .ok();
    o.json()[0].clone()
}

fn here(name: &str) -> Value {
    seen(std::process::id() as i32, name)
}

fn is_here(name: &str) -> bool {
    // not /sys, which may be of another network namespace
    let o = Cmd::new("ip").args(["link", "show", "dev", name]).run();
    o.code == 0
}

fn is_up(link: &Value) -> bool {
    link["flags"]
        .as_array()
        .expect("flags")
        .contains(&json!("UP"))
}

/// All but those that the kernel gives itself.
fn addresses(link: &Value) -> Vec<String> {
    let all = link["addr_info"].as_array().expect("addresses").iter();
    let given = all.filter(|a| a["scope"] != "link");
    let mut list: Vec<String> = given
        .map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]))
        .collect();
    list.sort();
    list
}

fn device(name: &str, value: Value) -> Bundle {
    Bundle::new().set("/linux/netDevices", json!({ name: value }))
}

const GLOBAL: [&str; 3] = ["10.9.8.7/24", "169.254.169.77/32", "fd00:1::5/64"];

fn moved_with_what_it_has() {
    host();
    let c = device("dev0", json!({})).start();
    let link = seen(c.pid(), "dev0");
    assert_eq!(
        (&link["address"], &link["mtu"]),
        (&json!(MAC), &json!(1789))
    );
    assert!(is_up(&link), "{link}");
    assert_eq!(addresses(&link), GLOBAL, "without that of another scope");
    let info = link["addr_info"].as_array().unwrap();
    let with_broadcast = info.iter().find(|a| a["local"] == "10.9.8.7").unwrap();
    if is_husk() {
        assert_eq!(with_broadcast["broadcast"], "10.9.8.255");
    }
    assert!(!is_here("dev0"));
    assert!(is_here("peer0"));
}

fn moved_into_a_user_namespace() {
    host();
    let c = device("dev0", json!({"name": "eth0"}))
        .user_namespace(100_000)
        .start();
    let link = seen(c.pid(), "eth0");
    assert_eq!(addresses(&link), GLOBAL);
    assert!(is_up(&link), "{link}");
}

/// Whose namespace it is decides what becomes of its interfaces.
fn joined_namespace_keeps_it() {
    host();
    let first = Bundle::new().start();
    let path = format!("/proc/{}/ns/net", first.pid());
    let second = device("dev0", json!({}))
        .namespace("network", Some(&path))
        .start();
    assert_eq!(addresses(&seen(second.pid(), "dev0")), GLOBAL);
    second.stop();
    second.delete();
    let link = seen(first.pid(), "dev0");
    assert!(is_up(&link), "{link}");
    assert_eq!(addresses(&link), GLOBAL);
}

fn renamed() {
    host();
    let c = device("dev0", json!({"name": "ctr_dev0"})).start();
    let link = seen(c.pid(), "ctr_dev0");
    assert_eq!(
        (&link["address"], &link["mtu"]),
        (&json!(MAC), &json!(1789))
    );
    assert_eq!(addresses(&link), GLOBAL);
    assert!(is_up(&link), "{link}");
}

fn renamed_by_a_template() {
    runc_fails("it looks for an interface that is called as the template");
    host();
    ip(&["link add eth0 type veth peer name eth0p"]);
    let b = Bundle::new().set(
        "/linux/netDevices",
        json!({"eth0": {}, "dev0": {"name": "eth%d"}, "peer0": {"name": "eth%d"}}),
    );
    let c = b.start();
    // names come first, and templates get what is left
    assert_eq!(addresses(&seen(c.pid(), "eth1")), GLOBAL);
    assert!(is_up(&seen(c.pid(), "eth0")) && is_up(&seen(c.pid(), "eth2")));
}

fn name_taken_is_refused() {
    host();
    let first = Bundle::new().start();
    let pid = first.pid().to_string();
    ip(&[
        "link add taken type veth peer name taken0",
        &format!("link set taken netns {pid}"),
    ]);
    let b = device("dev0", json!({"name": "taken"}))
        .namespace("network", Some(&format!("/proc/{pid}/ns/net")));
    b.refused(&["exists"]);
    let link = here("dev0");
    assert_eq!(addresses(&link).len(), 4, "as it was");
    if is_husk() {
        assert!(is_up(&link), "{link}");
    }
}

fn missing_is_refused() {
    host();
    let o = device("dev7", json!({})).refused(&["dev7"]);
    if is_husk() {
        assert!(
            o.err.contains(
                "linux.netDevices[\"dev7\"]: it is not in husk's network namespace: find network device 'dev7': no such device"
            ),
            "{o}"
        );
    }
}

fn names_are_checked() {
    host();
    for (name, inside) in [("a/b", ""), ("dev0", "a:b"), ("dev0", "..")] {
        device(name, json!({"name": inside})).refused(&["invalid network device name"]);
    }
    device("dev0", json!("eth0")).refused(&[]);
}

fn needs_a_network_namespace() {
    host();
    let b = device("dev0", json!({})).without_namespace("network");
    b.refused(&["unable to move network devices without a NET namespace"]);
    assert!(is_here("dev0"));
}

fn own_namespace_is_refused() {
    runc_fails("it renames the host's");
    host();
    let own = format!(
        "/proc/{}/task/{}/ns/net",
        std::process::id(),
        nix::unistd::gettid()
    );
    let b = device("dev0", json!({"name": "other"})).namespace("network", Some(&own));
    b.refused(&["linux.netDevices", "own"]);
    assert!(is_here("dev0"));
}

fn put_back_after_a_failure() {
    runc_fails("an interface that exists by software alone ends with the namespace");
    host();
    let before = here("dev0");
    // after the move, in the same list
    let b = Bundle::new().set(
        "/linux/netDevices",
        json!({"dev0": {"name": "x"}, "dev7": {}}),
    );
    b.refused(&["dev7"]);
    // in create, and in start
    device("dev0", json!({"name": "x"}))
        .set("/process/args", json!(["/nowhere"]))
        .refused(&["/nowhere"]);
    let b = device("dev0", json!({})).file("/bin/bad", "#!/nowhere\n", 0o755);
    b.set("/process/args", json!(["/bin/bad"]))
        .refused(&["/bin/bad"]);
    let after = here("dev0");
    assert!(is_up(&after), "{after}");
    assert_eq!(after["address"], before["address"]);
    assert_eq!(addresses(&after), GLOBAL);
}
