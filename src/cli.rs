//! The command line: runc's commands, flags and spellings, as data. Nothing is done or looked up here.
//!
//! The global options are parsed first and the rest of the line by the named command alone: building all seventeen commands
//! would cost every `husk state` more than its own work.

mod quick;

use crate::log::{Format, Level};
use crate::plan::limits;
use anyhow::{Result, anyhow};
use clap::builder::styling::Styles;
use clap::{Args, Command, Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Lines 1 and 2 are those of runc's help; scripts look for them.
const TEMPLATE: &str =
    "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\n{all-args}{after-help}\n";

const VERBS: &str = "\
COMMANDS:
   create      create a container; its process waits for start
   start       let the process of a created container run
   run         create a container, start it and wait for its end
   exec        run another process in a container
   state       show the state of a container as JSON
   list        list the containers of a root
   ps          show the processes of a container
   kill        send a signal to a container's first process
   pause       suspend all processes of a container
   resume      let a paused container go on
   delete      remove what is left of a container
   update      change the limits of a container
   events      show what a container uses, and its OOM kills, as JSON
   spec        write a new config.json
   features    show what husk can do, as JSON
   checkpoint, restore
               not supported yet

'husk COMMAND --help' says more about each.

EXAMPLE:
   A bundle is a directory with a config.json and a root filesystem. With a busybox in rootfs/:

       husk spec
       husk run my-container";

/// Open Container Initiative runtime
#[derive(Debug, Parser)]
#[command(
    disable_help_subcommand = true,
    disable_version_flag = true,
    allow_external_subcommands = true,
    arg_required_else_help = true,
    override_usage = "husk [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]",
    after_help = VERBS,
)]
struct Line {
    #[command(flatten)]
    global: Global,
    /// Print the version
    #[arg(short, long)]
    version: bool,
    #[command(subcommand)]
    rest: Option<Rest>,
}

#[derive(Debug, clap::Subcommand)]
enum Rest {
    #[command(external_subcommand)]
    Verb(Vec<OsString>),
}

/// What stands before the command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Directory for the state of containers, on a tmpfs [default: /run/husk, or $XDG_RUNTIME_DIR/husk without root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Write log lines to this file [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: Format,
    /// How much is told
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Warning)]
    pub log_level: Level,
    /// The same as --log-level debug
    #[arg(long)]
    pub debug: bool,
    /// Have systemd make the cgroup; cgroupsPath is "slice:prefix:name" then
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroup; systemd is the same as --systemd-cgroup
    #[arg(long, value_name = "MANAGER", value_enum, default_value_t)]
    pub cgroup_manager: CgroupManager,
    /// Whether to go on without the right to a cgroup
    #[arg(long, value_name = "BOOL", value_enum, default_value_t)]
    pub rootless: Rootless,
}

/// Podman's word for --systemd-cgroup and its absence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// husk itself, in the file system
    #[default]
    Cgroupfs,
    Systemd,
    /// Nobody: the container stays in husk's own cgroup
    Disabled,
}

impl Global {
    /// Two spellings of one wish.
    fn combine(&mut self) {
        if self.debug {
            self.log_level = Level::Debug;
        }
        if self.systemd_cgroup {
            self.cgroup_manager = CgroupManager::Systemd;
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    #[value(alias = "1", alias = "t")]
    True,
    #[value(alias = "0", alias = "f")]
    False,
    /// As the user and the user namespace say
    #[default]
    Auto,
}

impl Rootless {
    pub fn choice(self) -> Option<bool> {
        match self {
            Rootless::True => Some(true),
            Rootless::False => Some(false),
            Rootless::Auto => None,
        }
    }
}

/// A command with its arguments.
#[derive(Debug)]
pub enum Verb {
    Create(Create),
    Start(Start),
    Run(Run),
    Exec(Exec),
    State(State),
    List(List),
    Ps(Ps),
    Kill(Kill),
    Pause(Pause),
    Resume(Resume),
    Delete(Delete),
    Update(Box<Update>),
    Events(Events),
    Spec(Spec),
    Features(Features),
    /// `--version`, with the name under which husk was called.
    Version(String),
}

/// What both create and run take.
#[derive(Debug, Args)]
pub struct Creation {
    /// The bundle: a directory with config.json and the root filesystem
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Configuration to use instead of config.json of the bundle
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unix socket that gets a descriptor of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Write the pid to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root(2): needed when the root filesystem is on an initramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// Do not make a session keyring for the container
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Hand on descriptors 3 to N+2, after those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// Create a container; its process waits for start
///
/// Makes namespaces, mounts and cgroup as config.json of the bundle says, and everything up to the process itself, which
/// waits until 'husk start'. The id must be new in this root.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk create --bundle /srv/web --pid-file /run/web.pid web")]
pub struct Create {
    #[command(flatten)]
    pub creation: Creation,
    /// Name for the new container
    pub id: String,
}

/// Let the process of a created container run
///
/// Returns as soon as the process has been executed and the poststart hooks have run. If it cannot be executed, start fails
/// and says why.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk start web")]
pub struct Start {
    pub id: String,
}

/// Create a container, start it and wait for its end
///
/// Signals are passed on to the process, and its exit code becomes husk's (128 + the number of the signal that ended it).
/// Afterwards the container is deleted.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk run --bundle /srv/shell shell")]
pub struct Run {
    #[command(flatten)]
    pub creation: Creation,
    /// Return once the process runs
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container after its end
    #[arg(long)]
    pub keep: bool,
    /// Do not adopt processes that the container leaves behind
    #[arg(long)]
    pub no_subreaper: bool,
    /// Name for the new container
    pub id: String,
}

/// Run another process in a container
///
/// The process gets user, environment, capabilities and limits of config.json unless options or the file of --process say
/// otherwise. Its exit code becomes husk's; husk's own failures are 255.
#[derive(Debug, Parser)]
#[command(
    override_usage = "husk exec [OPTIONS] ID COMMAND [ARGUMENTS]\n   husk exec [OPTIONS] --process FILE ID",
    after_help = "EXAMPLE:\n   husk exec --tty --env TERM=linux web sh"
)]
pub struct Exec {
    /// Describe the process by this JSON file (the "process" of a config.json)
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Return once the process runs
    #[arg(short, long)]
    pub detach: bool,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Run as this user (and group)
    #[arg(short, long, value_name = "UID[:GID]", value_parser = User::parse)]
    pub user: Option<User>,
    /// Add a group; may be repeated
    #[arg(short = 'g', long, value_name = "GID", value_parser = numeric_id)]
    pub additional_gids: Vec<u32>,
    /// Add a capability to the bounding, effective and permitted sets; may be repeated
    #[arg(short, long, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// Label of the process for SELinux
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Executing a program never adds privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Unix socket that gets a descriptor of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Write the pid to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Hand on descriptors 3 to N+2, after those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Run in a cgroup below the container's, which must exist; may be repeated
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub cgroup: Vec<String>,
    /// Also enter a paused container; the process waits until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id and the command; parsing stops at the id
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "ID [COMMAND [ARGUMENTS]]"
    )]
    line: Vec<String>,
}

impl Exec {
    pub fn id(&self) -> &str {
        &self.line[0]
    }

    /// The command with its arguments; empty with --process.
    pub fn argv(&self) -> &[String] {
        &self.line[1..]
    }
}

/// Show the state of a container as JSON
///
/// The status is one of creating, created, running, paused and stopped; the pid is 0 when stopped.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk state web | jq -r .status")]
pub struct State {
    pub id: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// List the containers of a root
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk --root /run/containerd/runc/k8s.io list")]
pub struct List {
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Output,
    /// Print the ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Show the processes of a container
///
/// Runs ps(1) on the host, with -ef or the given arguments, and shows the lines of the container's processes. The output
/// must have a column PID. As JSON it is an array of pids, and ps(1) is not needed.
#[derive(Debug, Parser)]
#[command(
    override_usage = "husk ps [OPTIONS] ID [PS-ARGUMENTS]",
    after_help = "EXAMPLE:\n   husk ps web -o pid,rss,args"
)]
pub struct Ps {
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Output,
    /// The container's id and arguments for ps(1); parsing stops at the id
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "ID [PS-ARGUMENTS]"
    )]
    line: Vec<String>,
}

impl Ps {
    pub fn id(&self) -> &str {
        &self.line[0]
    }

    pub fn ps_arguments(&self) -> &[String] {
        &self.line[1..]
    }
}

/// Send a signal to a container's first process
///
/// Signals are numbers or names, with or without SIG. KILL ends all processes of a container that has no pid namespace of
/// its own.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk kill web HUP")]
pub struct Kill {
    /// A stopped container is no error (obsolete, for older engines)
    #[arg(short, long)]
    pub all: bool,
    pub id: String,
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// Suspend all processes of a container
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk pause web")]
pub struct Pause {
    pub id: String,
}

/// Let a paused container go on
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk resume web")]
pub struct Resume {
    pub id: String,
}

/// Remove what is left of a container
///
/// The container must be stopped, or created and never started. The root filesystem is not touched.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk delete --force web")]
pub struct Delete {
    /// Kill it first if it runs; a container that does not exist is no error
    #[arg(short, long)]
    pub force: bool,
    pub id: String,
}

/// Change the limits of a container
///
/// All limits that are given are set, or none. Memory takes bytes with an optional unit, 64M or 1.5g, or -1 for no limit. With
/// --resources all other options but those of Intel RDT are ignored.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    after_help = "EXAMPLE:\n   husk update --memory 256M --pids-limit 100 web\n   echo '{\"cpu\": {\"quota\": 50000}}' | husk update --resources - web"
)]
pub struct Update {
    /// Take them from this JSON file (linux.resources of a config.json), - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Share of the block devices, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Length of a period of the CPU quota
    #[arg(long, value_name = "µs")]
    pub cpu_period: Option<u64>,
    /// CPU time in a period; -1 for no limit
    #[arg(long, value_name = "µs", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Unused CPU time that may be saved up for later periods
    #[arg(long, value_name = "µs")]
    pub cpu_burst: Option<u64>,
    /// Weight against other cgroups, 2 to 262144 (1024 is usual)
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Ignored: cgroup v2 has no limit for real-time scheduling
    #[arg(long, value_name = "µs")]
    pub cpu_rt_period: Option<u64>,
    /// Ignored: cgroup v2 has no limit for real-time scheduling
    #[arg(long, value_name = "µs", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, such as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1: run only when nobody else wants to
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub cpu_idle: Option<i64>,
    /// Ignored: the kernel has no limit for its own memory any more
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub kernel_memory: Option<i64>,
    /// Ignored: the kernel has no limit for its own memory any more
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<i64>,
    /// Most memory
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory that is not taken away while others have some to spare
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Most memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Share of the cache that the container's class of service gets (Intel RDT), such as L3:0=f
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Share of memory bandwidth that the container's class of service gets (Intel RDT), such as MB:0=20
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    pub id: String,
}

/// Bytes, or -1.
fn size(text: &str) -> Result<i64, String> {
    let size = (text == "-1").then_some(-1);
    size.or_else(|| limits::size(text)).ok_or_else(|| {
        format!("'{text}' is not a size; give bytes, a number with K, M or G, or -1 for no limit")
    })
}

/// Show what a container uses, and its OOM kills, as JSON
///
/// Prints a line every few seconds, and one for each process that the kernel kills for want of memory, until the container ends.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk events --stats web | jq .data.memory.usage")]
pub struct Events {
    /// Time between two lines
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "5s")]
    pub interval: Duration,
    /// Print one line and return
    #[arg(long)]
    pub stats: bool,
    pub id: String,
}

/// A time as Go's programs take it, "100ms", "1m30s": more than none.
fn interval(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a time; give one such as 100ms, 5s or 1m30s");
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = number.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        let n: f64 = rest[..rest.len() - number.len()]
            .parse()
            .map_err(|_| bad())?;
        sum += n * match &number[..number.len() - unit.len()] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        rest = unit;
    }
    match Duration::try_from_secs_f64(sum) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(format!(
            "duration interval must be greater than 0; {}",
            bad()
        )),
    }
}

/// Write a new config.json
///
/// The configuration runs "sh" on a terminal, in namespaces of its own and with few capabilities, on the read-only root
/// filesystem in rootfs/. It is meant to be edited.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   mkdir try && cd try && husk spec --overlay && husk run try")]
pub struct Spec {
    /// Where to write it
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a user other than root: with a user namespace that maps the caller's ids
    #[arg(long)]
    pub rootless: bool,
    /// Needs no image: the root filesystem is the host's own, read-only, under a writable layer in memory
    #[arg(long)]
    pub overlay: bool,
}

/// Show what husk can do, as JSON
///
/// The format is that of features.md of the OCI runtime specification.
#[derive(Debug, Parser)]
#[command(after_help = "EXAMPLE:\n   husk features | jq .mountOptions")]
pub struct Features {}

/// `exec --user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: Option<u32>,
}

impl User {
    /// Digits, and nothing that is not read as a number may turn into uid 0 (CVE-2026-30892).
    fn parse(text: &str) -> Result<User, String> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        Ok(User {
            uid: numeric_id(uid)?,
            gid: gid.map(numeric_id).transpose()?,
        })
    }
}

/// A uid or gid; 4294967295 means "unchanged" to the kernel.
fn numeric_id(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => Err(format!(
            "'{text}' is not an id; give a number from 0 to 4294967294, names are not looked up"
        )),
    }
}

/// Why there is nothing to carry out.
#[derive(Debug)]
pub enum Stop {
    /// Text that was asked for, `--help`.
    Help(clap::Error),
    /// One line for the person who called.
    Usage(String),
}

/// The global options.
pub struct Parsed {
    pub global: Global,
    version: bool,
    name: String,
    rest: Vec<OsString>,
}

/// Reads the global options and finds the command.
pub fn parse_global(argv: impl IntoIterator<Item = OsString>) -> Result<Parsed, Stop> {
    let mut argv = argv.into_iter();
    let name = argv
        .next()
        .and_then(|a| Some(PathBuf::from(a).file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "husk".into());
    let words: Vec<OsString> = argv.collect();
    let (mut global, version, rest) = match quick::global(&words) {
        Some((global, rest)) => (global, false, rest.to_vec()),
        None => {
            let line: Line = read(name.clone(), words.into_iter())?;
            let rest = line.rest.map(|Rest::Verb(words)| words);
            (line.global, line.version, rest.unwrap_or_default())
        }
    };
    global.combine();
    Ok(Parsed {
        global,
        version,
        rest,
        name,
    })
}

impl Parsed {
    /// The command's own failures have exit code 255 (a child's exit code must not be taken for one of husk's).
    pub fn is_exec(&self) -> bool {
        self.rest.first().is_some_and(|v| v == "exec")
    }

    /// Reads the command's own arguments.
    pub fn verb(self) -> Result<Verb, Stop> {
        let Parsed { name, rest, .. } = self;
        if self.version {
            return Ok(Verb::Version(name));
        }
        let mut rest = rest.into_iter();
        let Some(verb) = rest.next() else {
            return Err(Stop::Usage(format!(
                "no command given; '{name} --help' lists them"
            )));
        };
        let verb = verb.to_string_lossy().into_owned();
        if verb == "help" || verb == "h" {
            let of = rest.next();
            let argv = of.into_iter().chain(["--help".into()]);
            let parsed = parse_global([name.into()].into_iter().chain(argv))?;
            return parsed.verb();
        }
        if let Some(quick) = quick::verb(&verb, rest.as_slice()) {
            return Ok(quick);
        }
        read_verb(name, &verb, rest)
    }
}

/// The whole command line, for manual pages and completions; husk itself never builds it.
pub fn tree() -> Command {
    use clap::CommandFactory;
    let verbs = [
        Create::command().name("create"),
        Start::command().name("start"),
        Run::command().name("run"),
        Exec::command().name("exec"),
        State::command().name("state"),
        List::command().name("list"),
        Ps::command().name("ps"),
        Kill::command().name("kill"),
        Pause::command().name("pause"),
        Resume::command().name("resume"),
        Delete::command().name("delete"),
        Update::command().name("update"),
        Events::command().name("events"),
        Spec::command().name("spec"),
        Features::command().name("features"),
    ];
    let line = Global::augment_args(Command::new("husk"));
    line.about("Open Container Initiative runtime")
        .disable_help_subcommand(true)
        .subcommands(verbs)
}

fn read_verb(name: String, verb: &str, rest: impl Iterator<Item = OsString>) -> Result<Verb, Stop> {
    let bin = format!("{name} {verb}");
    Ok(match verb {
        "create" => Verb::Create(read(bin, rest)?),
        "start" => Verb::Start(read(bin, rest)?),
        "run" => Verb::Run(read(bin, rest)?),
        "exec" => Verb::Exec(read(bin, rest)?),
        "state" => Verb::State(read(bin, rest)?),
        "list" => Verb::List(read(bin, rest)?),
        "ps" => Verb::Ps(read(bin, rest)?),
        "kill" => Verb::Kill(read(bin, rest)?),
        "pause" => Verb::Pause(read(bin, rest)?),
        "resume" => Verb::Resume(read(bin, rest)?),
        "delete" => Verb::Delete(read(bin, rest)?),
        "update" => Verb::Update(Box::new(read(bin, rest)?)),
        "events" => Verb::Events(read(bin, rest)?),
        "spec" => Verb::Spec(read(bin, rest)?),
        "features" => Verb::Features(read(bin, rest)?),
        "checkpoint" | "restore" => {
            return Err(not_yet(bin, rest));
        }
        _ => {
            return Err(Stop::Usage(format!(
                "No help topic for '{verb}'; '{name} --help' lists the commands"
            )));
        }
    })
}

/// Commands of runc that husk does not have yet are named in the help, and refused by name.
fn not_yet(bin: String, mut rest: impl Iterator<Item = OsString>) -> Stop {
    if rest.any(|w| w == "--help" || w == "-h") {
        let usage = format!("{bin} ...");
        let command = Command::new("")
            .about("Not supported yet")
            .override_usage(usage);
        match parse_with(command, bin, ["--help".into()].into_iter()) {
            Err(stop) => stop,
            Ok(_) => unreachable!("--help always stops"),
        }
    } else {
        Stop::Usage(format!("{bin}: not supported yet"))
    }
}

fn read<T: Parser>(bin: String, args: impl Iterator<Item = OsString>) -> Result<T, Stop> {
    let mut matches = parse_with(T::command(), bin, args)?;
    T::from_arg_matches_mut(&mut matches).map_err(|e| stop(e, ""))
}

fn parse_with(
    command: Command,
    bin: String,
    args: impl Iterator<Item = OsString>,
) -> Result<clap::ArgMatches, Stop> {
    let hint = bin.clone();
    command
        .no_binary_name(true)
        .display_name(bin.clone())
        .bin_name(bin)
        .help_template(TEMPLATE)
        .styles(Styles::plain())
        .args_override_self(true)
        .try_get_matches_from(args)
        .map_err(|e| stop(e, &hint))
}

fn stop(e: clap::Error, bin: &str) -> Stop {
    use clap::error::ErrorKind::*;
    match e.kind() {
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand => Stop::Help(e),
        _ => Stop::Usage(one_line(&e.to_string(), bin)),
    }
}

/// clap's first paragraph without its "error: ", and where to read more.
fn one_line(text: &str, bin: &str) -> String {
    let first = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let words: Vec<&str> = first.split_whitespace().collect();
    format!("{}; see '{bin} --help'", words.join(" "))
}

/// For callers that want an [`anyhow::Error`].
impl From<Stop> for anyhow::Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Help(e) => anyhow!("{e}"),
            Stop::Usage(text) => anyhow!(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Global, Verb), Stop> {
        let parsed = parse_global(line.split(' ').map(OsString::from))?;
        Ok((parsed.global.clone(), parsed.verb()?))
    }

    fn verb(line: &str) -> Verb {
        match parse(line) {
            Ok((_, verb)) => verb,
            Err(stop) => panic!("{line}: {stop:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        match parse(line) {
            Err(Stop::Usage(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn help(line: &str) -> String {
        match parse(line) {
            Err(Stop::Help(text)) => text.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault_in_any_command() {
        use clap::CommandFactory;
        Line::command().no_binary_name(true).debug_assert();
        for command in tree().get_subcommands().cloned() {
            command.no_binary_name(true).debug_assert();
        }
    }

    #[test]
    fn global_options_as_go_runc_gives_them() {
        let line = "husk --root /r --debug --log=/l --log-format json --rootless=true --systemd-cgroup state x";
        let (global, verb) = parse(line).unwrap();
        assert_eq!(global.root.as_deref(), Some("/r".as_ref()));
        assert_eq!(global.log.as_deref(), Some("/l".as_ref()));
        assert_eq!(
            (
                global.log_format,
                global.rootless,
                global.cgroup_manager,
                global.debug
            ),
            (Format::Json, Rootless::True, CgroupManager::Systemd, true)
        );
        assert!(matches!(verb, Verb::State(State { id }) if id == "x"));
        assert_eq!(global.log_level, Level::Debug);

        let (global, _) = parse("husk --cgroup-manager=systemd --log-level warn list").unwrap();
        assert_eq!(
            (global.cgroup_manager, global.log_level),
            (CgroupManager::Systemd, Level::Warning)
        );
    }

    #[test]
    fn create_and_run_as_conmon_and_containerd_call_them() {
        let Verb::Create(create) = verb(
            "husk create --bundle /b --console-socket=/c --pidfd-socket /q --pid-file /p --no-pivot --no-new-keyring --preserve-fds 3 web",
        ) else {
            panic!()
        };
        let c = create.creation;
        assert_eq!(
            (c.no_pivot, c.no_new_keyring, c.preserve_fds),
            (true, true, 3)
        );
        assert_eq!(c.console_socket.as_deref(), Some("/c".as_ref()));
        let Verb::Run(run) = verb("husk run -d --keep web -b /b --no-subreaper") else {
            panic!()
        };
        assert!(run.detach && run.keep && run.no_subreaper);
        assert_eq!(run.creation.bundle, PathBuf::from("/b"));
    }

    #[test]
    fn options_may_follow_the_id_but_not_in_exec_and_ps() {
        assert!(matches!(verb("husk delete web -f"), Verb::Delete(d) if d.force));
        assert!(matches!(verb("husk kill -a web 0"), Verb::Kill(k) if k.all && k.signal == "0"));
        assert!(matches!(verb("husk kill web"), Verb::Kill(k) if k.signal == "TERM"));
        assert!(matches!(verb("husk kill web -- -9"), Verb::Kill(k) if k.signal == "-9"));

        let Verb::Exec(exec) = verb("husk exec -t -e A=b -e C=d web sh -c -t --tty -- --cwd")
        else {
            panic!()
        };
        assert_eq!((exec.id(), exec.tty), ("web", true));
        assert_eq!(exec.argv(), ["sh", "-c", "-t", "--tty", "--", "--cwd"]);
        assert_eq!(exec.env, ["A=b", "C=d"]);

        let Verb::Ps(ps) = verb("husk ps -f json web -e -f -x") else {
            panic!()
        };
        assert_eq!((ps.id(), ps.format), ("web", Output::Json));
        assert_eq!(ps.ps_arguments(), ["-e", "-f", "-x"]);
    }

    #[test]
    fn exec_takes_all_of_runcs_options() {
        let Verb::Exec(e) = verb(
            "husk exec --process=/p -d --console-socket /c --pidfd-socket /q --cwd /w -u 1000:100 -g 5 -g 6 -c CAP_KILL --process-label l --apparmor a --no-new-privs --pid-file /pid --preserve-fds=2 --cgroup x --ignore-paused web",
        ) else {
            panic!()
        };
        assert_eq!(
            e.user,
            Some(User {
                uid: 1000,
                gid: Some(100)
            })
        );
        assert_eq!((e.additional_gids, e.preserve_fds), (vec![5, 6], 2));
        assert!(e.ignore_paused && e.no_new_privs && e.detach);
        assert_eq!(e.cgroup, ["x"]);
    }

    #[test]
    fn update_takes_all_of_runcs_options() {
        let Verb::Update(u) = verb(
            "husk update web --blkio-weight 10 --cpu-period 1 --cpu-quota -1 --cpu-burst 2 --cpu-share 3 --cpu-rt-period 4 --cpu-rt-runtime -5 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-idle 1 --kernel-memory 5 --kernel-memory-tcp 6 --memory 64M --memory-reservation=-1 --memory-swap -1 --pids-limit -1 --l3-cache-schema L3:0=f --mem-bw-schema MB:0=5",
        ) else {
            panic!()
        };
        assert_eq!(
            (u.id.as_str(), u.cpu_quota, u.memory, u.pids_limit),
            ("web", Some(-1), Some(64 << 20), Some(-1))
        );
        let Verb::Update(u) = verb("husk update -r - web") else {
            panic!()
        };
        assert_eq!(u.resources.as_deref(), Some("-".as_ref()));
    }

    #[test]
    fn intervals_as_go_takes_them() {
        for (text, ms) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2000us", 2),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "0s", "0", "5", "s", "-5s", "1x", "1s2", "1..5s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
        let Verb::Events(e) = verb("husk events --stats web") else {
            panic!()
        };
        assert_eq!((e.interval, e.stats), (Duration::from_secs(5), true));
    }

    #[test]
    fn a_user_that_is_not_a_number_is_never_root() {
        let user = |text| User::parse(text).map(|u| (u.uid, u.gid));
        assert_eq!(user("0"), Ok((0, None)));
        assert_eq!(user("1000:0"), Ok((1000, Some(0))));
        assert_eq!(user("4294967294"), Ok((4_294_967_294, None)));
        for bad in [
            "",
            ":",
            ":1",
            "1:",
            "nobody",
            "nobody:1",
            "1:users",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1:-1",
            "0x10",
            "1.0",
            "1:2:3",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1:4294967295",
            "١",
        ] {
            let e = user(bad).unwrap_err();
            assert!(e.contains("is not an id; give a number"), "{bad}: {e}");
        }
        let e = refusal("husk exec --user root web id");
        assert!(
            e.contains("'root' is not an id") && e.contains("see 'husk exec --help'"),
            "{e}"
        );
    }

    #[test]
    fn usage_errors_are_one_line_and_tell_where_to_read_more() {
        for (line, has) in [
            ("husk --bogus state x", "unexpected argument '--bogus'"),
            ("husk --log-format xml state x", "'xml'"),
            ("husk state", "ID"),
            ("husk state a b", "unexpected argument 'b'"),
            ("husk state --bogus a", "unexpected argument '--bogus'"),
            ("husk exec --bogus a", "unexpected argument '--bogus'"),
            ("husk exec", "ID"),
            ("husk create --bundle= a", "--bundle"),
            ("husk run --preserve-fds -1 a", "-1"),
            ("husk list -f x", "invalid value 'x'"),
            ("husk foo", "No help topic for 'foo'"),
            ("husk foo -h", "No help topic for 'foo'"),
            ("husk update --memory lots a", "'lots' is not a size"),
            (
                "husk restore --image-path x a",
                "husk restore: not supported yet",
            ),
            ("husk --debug", "no command given"),
        ] {
            let e = refusal(line);
            assert!(e.contains(has), "{line}: {e}");
            assert!(!e.contains('\n') && !e.starts_with("error"), "{line}: {e}");
        }
    }

    #[test]
    fn help_begins_as_runcs() {
        for line in ["runc -h", "/usr/bin/runc --help", "runc help", "runc"] {
            let text = help(line);
            assert!(
                text.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"),
                "{text}"
            );
        }
        for v in [
            "create",
            "start",
            "run",
            "exec",
            "state",
            "list",
            "ps",
            "kill",
            "pause",
            "resume",
            "delete",
            "spec",
            "features",
            "update",
            "events",
            "checkpoint",
            "restore",
        ] {
            for line in [
                format!("runc {v} -h"),
                format!("runc {v} --help"),
                format!("runc help {v}"),
            ] {
                let text = help(&line);
                assert!(
                    text.starts_with(&format!("NAME:\n   runc {v} - ")),
                    "{text}"
                );
            }
        }
        assert!(help("husk run --help").contains("EXAMPLE:"));
    }
}
