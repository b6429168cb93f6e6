//! process.terminal: through a console socket, or on the caller's terminal.

use crate::support::pty::{FdSocket, Pty, on_terminal};
use crate::support::*;

tests![
    create_sends_the_pty,
    run_detached_sends_the_pty,
    exec_detached_sends_the_pty,
    size_of_the_config,
    size_is_ignored_without_terminal,
    owner_is_the_user,
    console_node,
    socket_is_missing,
    create_needs_a_socket,
    socket_needs_a_terminal,
    run_on_a_terminal,
    run_passes_keys,
    run_follows_the_size,
    run_restores_the_terminal,
    run_prints_errors_readably,
    exec_on_a_terminal,
    pty_ends_with_the_container,
    in_a_user_namespace,
    pidfd_of_a_container,
    pidfd_by_annotation,
    pidfd_of_an_exec,
];

fn with_terminal() -> Bundle {
    Bundle::new().set("/process/terminal", json!(true))
}

/// The line of the payload's `tty` on a pty.
#[track_caller]
fn seen(pty: &mut Pty) -> Value {
    let text = pty.read_until("]}");
    let (start, end) = (text.find('{').unwrap(), text.rfind('}').unwrap());
    serde_json::from_str(&text[start..=end]).unwrap()
}

#[track_caller]
fn check_tty(tty: &Value) {
    for fd in ["0", "1", "2"] {
        assert_eq!(tty[fd]["tty"], true, "{tty}");
        assert_eq!(
            tty[fd]["name"], "/dev/pts/0",
            "a pty of the container's own devpts: {tty}"
        );
    }
    assert_eq!(tty["controlling"], true, "{tty}");
}

fn create_sends_the_pty() {
    let socket = FdSocket::new();
    let mut c = with_terminal()
        .payload(&["tty", ";", "tty-line"])
        .container();
    c.create(&["--console-socket", socket.arg()]);
    let mut pty = socket.pty();
    c.start();
    check_tty(&seen(&mut pty));
    pty.write("some words\n");
    pty.read_until("got some words");
    c.wait_status("stopped");
}

fn run_detached_sends_the_pty() {
    let socket = FdSocket::new();
    let mut c = with_terminal().payload(&["tty", ";", "wait"]).container();
    c.run_detached(&["--console-socket", socket.arg()]);
    let mut pty = socket.pty();
    check_tty(&seen(&mut pty));
    pty.read_until("ready");
    // the pty's own ^C: the process has it as its controlling terminal
    pty.write("\x03");
    pty.read_until("signal SIGINT");
    c.wait_status("stopped");
}

fn exec_detached_sends_the_pty() {
    let c = Bundle::new().start();
    let socket = FdSocket::new();
    let options = ["--tty", "--detach", "--console-socket", socket.arg()];
    c.exec(&options, &["tty"]).ok();
    check_tty(&seen(&mut socket.pty()));
}

fn size_of_the_config() {
    let socket = FdSocket::new();
    let b = with_terminal().set("/process/consoleSize", json!({"height": 10, "width": 110}));
    let mut c = b.payload(&["tty"]).container();
    c.run_detached(&["--console-socket", socket.arg()]);
    assert_eq!(seen(&mut socket.pty())["0"]["size"], json!([10, 110]));
}

fn size_is_ignored_without_terminal() {
    let b = Bundle::new().set("/process/consoleSize", json!({"height": 10, "width": 110}));
    let tty = b.payload(&["tty"]).run().ok().json();
    assert_eq!(tty["1"]["tty"], false);
}

fn owner_is_the_user() {
    let socket = FdSocket::new();
    let b = with_terminal().set("/process/user", json!({"uid": 1000, "gid": 100}));
    let mut c = b.payload(&["tty"]).container();
    c.run_detached(&["--console-socket", socket.arg()]);
    // the group is that of the devpts mount, gid=5
    assert_eq!(seen(&mut socket.pty())["owner"], json!([1000, 5]));
}

fn console_node() {
    let socket = FdSocket::new();
    let mut c = with_terminal()
        .payload(&["stat", "/dev/console"])
        .container();
    c.run_detached(&["--console-socket", socket.arg()]);
    let mut pty = socket.pty();
    let text = pty.read_until("}").trim().to_string();
    let s: Value = serde_json::from_str(&text).unwrap();
    if s["type"] == "char" {
        assert_eq!((&s["major"], &s["minor"]), (&json!(136), &json!(0)), "{s}");
    }
    let o = Bundle::new().payload(&["stat", "/dev/console"]).run();
    assert_eq!(o.line(), "error ENOENT", "without a terminal there is none");
}

fn socket_is_missing() {
    let c = with_terminal().container();
    let options = ["--console-socket", "/no/where"];
    c.cmd("create", &options)
        .run()
        .fails(1, &["/no/where", "no such file or directory"]);
    c.cmd0("state").run().fails(1, &["does not exist"]);
}

fn create_needs_a_socket() {
    let c = with_terminal().container();
    c.cmd("create", &[]).run().fails(1, &["tty", "console"]);
}

fn socket_needs_a_terminal() {
    let socket = FdSocket::new();
    let c = Bundle::new().container();
    c.cmd("create", &["--console-socket", socket.arg()])
        .run()
        .fails(1, &["console socket"]);
}

fn run_on_a_terminal() {
    let (mut pty, slave) = Pty::open();
    pty.resize(33, 77);
    // runc sets the size while the process is running already
    let first = if is_husk() { "0" } else { "0.3" };
    let verbs = [
        "sleep", first, ";", "tty", ";", "tty-line", ";", "exit", "5",
    ];
    let c = with_terminal().payload(&verbs).container();
    let run = on_terminal(c.cmd("run", &[]), &slave);
    let tty = seen(&mut pty);
    check_tty(&tty);
    assert_eq!(tty["0"]["size"], json!([33, 77]), "as the caller's");
    pty.write("hello\r");
    pty.read_until("got hello");
    run.wait().exits(5);
}

fn run_passes_keys() {
    let (mut pty, slave) = Pty::open();
    let c = with_terminal().container();
    let run = on_terminal(c.cmd("run", &[]), &slave);
    pty.read_until("ready");
    // the outer terminal is raw: ^Z and ^C are the inner one's to make signals of
    pty.write("\x1a");
    pty.read_until("signal SIGTSTP");
    pty.write("\x03");
    pty.read_until("signal SIGINT");
    run.wait().ok();
}

fn run_follows_the_size() {
    let (mut pty, slave) = Pty::open();
    pty.resize(20, 20);
    let c = with_terminal().container();
    let run = on_terminal(c.cmd("run", &[]), &slave);
    pty.read_until("ready");
    pty.resize(44, 55);
    pty.read_until("signal SIGWINCH");
    let proc = format!("/proc/{}/fd/0", c.pid());
    assert!(std::fs::read_link(proc).unwrap().ends_with("pts/0"));
    c.kill("TERM").ok();
    run.wait().ok();
}

fn run_restores_the_terminal() {
    let (mut pty, slave) = Pty::open();
    let before = nix::sys::termios::tcgetattr(&slave).unwrap();
    let c = with_terminal().payload(&["echo", "hi"]).container();
    on_terminal(c.cmd("run", &[]), &slave).wait().ok();
    pty.read_until("hi\r\n");
    let after = nix::sys::termios::tcgetattr(&slave).unwrap();
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.input_flags, after.input_flags);
    assert_eq!(before.output_flags, after.output_flags);
}

fn run_prints_errors_readably() {
    let (mut pty, slave) = Pty::open();
    let c = with_terminal()
        .set("/process/args", json!(["/bin/nothing"]))
        .container();
    on_terminal(c.cmd("run", &[]), &slave).wait().exits(1);
    pty.read_until("/bin/nothing");
    pty.read_until("no such file or directory");
}

fn exec_on_a_terminal() {
    let c = Bundle::new().start();
    let (mut pty, slave) = Pty::open();
    let exec = on_terminal(c.exec_cmd(&["--tty"], &["tty", ";", "exit", "9"]), &slave);
    check_tty(&seen(&mut pty));
    exec.wait().exits(9);
}

fn pty_ends_with_the_container() {
    let socket = FdSocket::new();
    let mut c = with_terminal().payload(&["echo", "last words"]).container();
    c.run_detached(&["--console-socket", socket.arg()]);
    let mut pty = socket.pty();
    assert_eq!(pty.read_all().trim_end(), "last words");
}

fn in_a_user_namespace() {
    let socket = FdSocket::new();
    let mut c = with_terminal()
        .user_namespace(100_000)
        .payload(&["tty"])
        .container();
    c.run_detached(&["--console-socket", socket.arg()]);
    let tty = seen(&mut socket.pty());
    check_tty(&tty);
    assert_eq!(tty["owner"], json!([0, 5]));
}

/// The pid that a pidfd stands for, from its fdinfo.
fn pid_of(fd: &std::os::fd::OwnedFd) -> i32 {
    let n = std::os::fd::AsRawFd::as_raw_fd(fd);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{n}")).unwrap();
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"));
    pid.expect("a pidfd").trim().parse().unwrap()
}

fn pidfd_of_a_container() {
    let socket = FdSocket::new();
    let mut c = Bundle::new().container();
    c.create(&["--pidfd-socket", socket.arg()]);
    let (fd, _) = socket.receive();
    assert_eq!(pid_of(&fd), c.pid());
}

fn pidfd_by_annotation() {
    husk_only("runc has no annotations of crun's");
    let socket = FdSocket::new();
    let c = Bundle::new()
        .set(
            "/annotations",
            json!({"run.oci.pidfd_receiver": socket.arg()}),
        )
        .create();
    let (fd, _) = socket.receive();
    assert_eq!(pid_of(&fd), c.pid());
}

fn pidfd_of_an_exec() {
    let socket = FdSocket::new();
    let c = Bundle::new().start();
    c.exec(
        &[
            "--detach",
            "--pidfd-socket",
            socket.arg(),
            "--pid-file",
            "pid",
        ],
        &["wait"],
    )
    .ok();
    let (fd, _) = socket.receive();
    assert_eq!(
        pid_of(&fd).to_string(),
        std::fs::read_to_string("pid").unwrap()
    );
}
