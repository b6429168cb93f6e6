//! Containers and their processes, as data.

use crate::runtime::{Options, Runtime};
use crate::ttrpc::{Answer, Failure, Reply};
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use husk::cgroup::CgroupDir;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a process's streams go, as containerd says it: paths of fifos or URIs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The runtime is making it; nobody may know of it yet.
    Making,
    Created,
    Running,
    Stopped,
}

#[derive(Clone, Debug)]
pub struct Exit {
    pub status: u32,
    pub at: Timestamp,
}

impl Exit {
    pub fn now(status: u32) -> Exit {
        Exit { status, at: now() }
    }
}

pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut at = Timestamp::new();
    at.seconds = since.as_secs() as i64;
    at.nanos = since.subsec_nanos() as i32;
    at
}

/// A container's first process, or one of exec.
pub struct Process {
    /// Tells its streams from those of others; ids come again.
    pub serial: u64,
    /// 0: not yet.
    pub pid: i32,
    pub state: State,
    pub stdio: Stdio,
    /// The runtime starts it: an end that is seen meanwhile comes after the start.
    pub starting: bool,
    /// Its end, which is to be told when those before it have been.
    pub held: Option<Exit>,
    pub exit: Option<Exit>,
    pub waiters: Vec<Reply>,
    /// Signals that came while the runtime started it, for which there was no pid yet.
    pub kills: Vec<(i32, Reply)>,
    pub terminal: Option<Terminal>,
    /// Keeps the fifo of stdin from ending until CloseIO.
    pub stdin: Option<OwnedFd>,
    /// CloseIO may come before the fifo is opened.
    pub stdin_closed: bool,
    /// process.json, of exec until it is started.
    pub spec: Vec<u8>,
}

pub struct Terminal {
    pub master: Rc<OwnedFd>,
    /// Kept until the process's end: without any slave the master is at its end, though another may be opened.
    pub slave: Option<OwnedFd>,
}

impl Process {
    pub fn new(serial: u64, state: State, stdio: Stdio) -> Process {
        Process {
            serial,
            pid: 0,
            state,
            stdio,
            starting: false,
            held: None,
            exit: None,
            waiters: Vec::new(),
            kills: Vec::new(),
            terminal: None,
            stdin: None,
            stdin_closed: false,
            spec: Vec::new(),
        }
    }

    /// Keeps the fifo of stdin open from now on.
    pub fn hold_stdin(&mut self, keeper: Option<OwnedFd>) {
        self.stdin = keeper.filter(|_| !self.stdin_closed);
    }

    /// One that was never started may be; while it is started nobody knows what there is to delete.
    pub fn may_be_deleted(&self) -> Answer<()> {
        if self.starting {
            return Err(Failure::precondition(
                "cannot delete a process that is being started; kill it, or wait for its start",
            ));
        }
        if self.is_alive() && self.state != State::Created {
            return Err(Failure::precondition("cannot delete a running process"));
        }
        Ok(())
    }

    /// It has a pid, or is about to get one, and its end has not been told.
    pub fn is_alive(&self) -> bool {
        self.exit.is_none() && (self.pid != 0 || self.starting)
    }
}

pub struct Container {
    pub bundle: PathBuf,
    pub runtime: Runtime,
    pub options: Options,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    /// The runtime's command that makes it, while it does.
    pub making: Option<i32>,
    /// Whoever wanted it made does not wait any more.
    pub abandoned: bool,
    pub paused: bool,
    /// The first process has ended: nothing may be started in it any more.
    pub ending: bool,
    pub cgroup: Option<CgroupDir>,
    /// memory.events, to be told of a kill for want of memory.
    pub memory_events: Option<OwnedFd>,
    pub oom_kills: u64,
}

impl Container {
    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// "" is the first process.
    pub fn process(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() {
            Some(&mut self.init)
        } else {
            self.execs.get_mut(exec)
        }
    }

    /// The exec id of a process that has not ended, "" for the first one.
    pub fn exec_of(&self, pid: i32) -> Option<&str> {
        let is = |p: &Process| p.pid == pid && p.exit.is_none() && p.held.is_none();
        if is(&self.init) {
            return Some("");
        }
        let found = self.execs.iter().find(|(_, p)| is(p));
        found.map(|(id, _)| id.as_str())
    }
}
