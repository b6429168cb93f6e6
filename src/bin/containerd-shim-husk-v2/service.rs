//! The task service, versions 2 and 3, whose messages are the same.

use crate::events;
use crate::io::Io;
use crate::metrics;
use crate::rootfs;
use crate::runtime::{Options, Runtime};
use crate::server::{Parked, Shim, Then, short_path, written};
use crate::task::{Container, Exit, Process, State, Stdio, Terminal};
use crate::ttrpc::{Answer, Failure, Reply};
use anyhow::Context;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    Mount, PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task as event;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::ttrpc::{Code, Request};
use husk::cgroup::CgroupDir;
use husk::log;
use husk::sys::tty::{self, Size};
use husk::sys::{fs, process, socket};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// For output that is still on its way when a process is deleted, as containerd's own shim waits.
const DRAIN: Duration = Duration::from_secs(10);

/// What comes after a logger has said that it is ready.
type Logged = Box<dyn FnOnce(&mut Shim, Answer<Io>)>;

fn parse<M: Message>(bytes: &[u8]) -> Answer<M> {
    M::parse_from_bytes(bytes)
        .map_err(|e| Failure::new(Code::INVALID_ARGUMENT, format!("parse the request: {e}")))
}

impl Shim {
    pub fn dispatch(&mut self, request: Request, reply: Reply) {
        log::debug(format_args!("{}/{}", request.service, request.method));
        let known = ["containerd.task.v3.Task", "containerd.task.v2.Task"];
        let result = if known.contains(&&*request.service) {
            let limit = u64::try_from(request.timeout_nano).ok().filter(|n| *n > 0);
            let limit = limit.map(Duration::from_nanos);
            self.call(&request.method, &request.payload, limit, reply)
        } else {
            let text = format!("service '{}' is not offered", request.service);
            Err(Failure::new(Code::UNIMPLEMENTED, text))
        };
        if let Err(failure) = result {
            self.respond(reply, Err(failure));
        }
    }

    /// A method answers itself, now or later, unless it fails here.
    fn call(
        &mut self,
        method: &str,
        payload: &[u8],
        limit: Option<Duration>,
        reply: Reply,
    ) -> Answer<()> {
        match method {
            "Create" => self.create(parse(payload)?, limit, reply),
            "Start" => self.start(parse(payload)?, reply),
            "Exec" => self.exec(parse(payload)?, reply),
            "Delete" => self.delete(parse(payload)?, reply),
            "State" => self.state(parse(payload)?, reply),
            "Wait" => self.wait_for(parse(payload)?, reply),
            "Kill" => self.kill(parse(payload)?, reply),
            "Pause" => self.pause(parse(payload)?, reply),
            "Resume" => self.resume(parse(payload)?, reply),
            "Pids" => self.pids(parse(payload)?, reply),
            "Update" => self.update(parse(payload)?, reply),
            "Stats" => self.stats(parse(payload)?, reply),
            "ResizePty" => self.resize(parse(payload)?, reply),
            "CloseIO" => self.close_io(parse(payload)?, reply),
            "Connect" => self.connect(parse(payload)?, reply),
            "Shutdown" => self.shutdown(parse(payload)?, reply),
            "Checkpoint" => checkpoint(parse(payload)?),
            _ => Err(Failure::new(
                Code::UNIMPLEMENTED,
                format!("method '{method}' is not known"),
            )),
        }
    }

    fn done(&mut self, reply: Reply) -> Answer<()> {
        self.answer(reply, Ok(Empty::new()));
        Ok(())
    }

    /// One that is being made is not there yet.
    fn container(&mut self, id: &str) -> Answer<&mut Container> {
        let found = self.containers.get_mut(id);
        found
            .filter(|c| c.init.state != State::Making)
            .ok_or_else(|| Failure::not_found(format!("container '{id}' not created")))
    }

    fn process(&mut self, id: &str, exec: &str) -> Answer<&mut Process> {
        let missing = || Failure::not_found(format!("process does not exist {exec}"));
        self.container(id)?.process(exec).ok_or_else(missing)
    }

    // create

    /// `limit`: how long the caller waits.
    fn create(
        &mut self,
        r: CreateTaskRequest,
        limit: Option<Duration>,
        reply: Reply,
    ) -> Answer<()> {
        if self.containers.contains_key(&r.id) {
            let text = format!("container '{}' already exists", r.id);
            return Err(Failure::new(Code::ALREADY_EXISTS, text));
        }
        if !r.checkpoint.is_empty() {
            let text = "restore from a checkpoint: not in this shim yet";
            return Err(Failure::new(Code::UNIMPLEMENTED, text));
        }
        let bundle = PathBuf::from(&r.bundle);
        let mut options = Options::from_any(r.options.as_ref())?;
        if r.options.is_none() {
            options.systemd_cgroup = names_a_scope(&bundle);
        }
        options.save(&bundle)?;
        let rootfs = bundle.join("rootfs");
        rootfs::mount(&r.rootfs, &rootfs)?;
        let stdio = Stdio {
            stdin: r.stdin.clone(),
            stdout: r.stdout.clone(),
            stderr: r.stderr.clone(),
            terminal: r.terminal,
        };
        let serial = self.next_serial();
        let mut io = match Io::open(serial, &stdio, &options, &self.namespace, &r.id) {
            Ok(io) => io,
            Err(e) => {
                rootfs::unmount(&rootfs);
                return Err(e.context("create the streams").into());
            }
        };
        let mut container = Container {
            runtime: Runtime::new(&options, &self.namespace, &bundle),
            bundle,
            options,
            init: Process::new(serial, State::Making, stdio),
            execs: BTreeMap::new(),
            making: None,
            abandoned: false,
            paused: false,
            ending: false,
            cgroup: None,
            memory_events: None,
            oom_kills: 0,
        };
        container.init.hold_stdin(io.keeper.take());
        self.containers.insert(r.id.clone(), container);
        self.leaving = false;
        if let Some(limit) = limit {
            let id = r.id.clone();
            self.later(limit, move |shim| {
                if shim
                    .containers
                    .get(&id)
                    .is_some_and(|c| c.init.serial == serial)
                {
                    shim.abandon(&id);
                }
            });
        }
        self.when_logged(
            io,
            Box::new(move |shim, io| {
                let id = r.id.clone();
                let abandoned = shim.containers.get(&id).is_none_or(|c| c.abandoned);
                let io = if abandoned { Err(too_late()) } else { io };
                let result = io.and_then(|io| shim.execute_create(r, io, reply));
                if let Err(e) = result {
                    shim.give_up(&id);
                    shim.respond(reply, Err(e));
                }
            }),
        );
        Ok(())
    }

    fn execute_create(&mut self, r: CreateTaskRequest, mut io: Io, reply: Reply) -> Answer<()> {
        let container = self.containers.get(&r.id).ok_or_else(gone)?;
        let runtime = container.runtime.clone();
        let bundle = container.bundle.clone();
        let pid_file = bundle.join("init.pid");
        let mut command = runtime.command("create");
        command.arg("--bundle").arg(&bundle);
        command.arg("--pid-file").arg(&pid_file);
        if container.options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if container.options.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let console = Console::listen(&bundle, &container.init)?;
        if let Some(console) = &console {
            command.arg("--console-socket").arg(&console.name);
        }
        command.arg(&r.id);
        io.give(&mut command);
        let id = r.id.clone();
        let then: Then = Box::new(move |shim, result| {
            let id = r.id.clone();
            let container = shim.containers.get_mut(&id);
            let abandoned = container.is_none_or(|c| {
                c.making = None;
                c.abandoned
            });
            // that of a command that was killed is as good as any
            let there = abandoned || result.is_ok();
            let made = match result {
                _ if abandoned => Err(too_late()),
                Ok(_) => shim.created(&r, io, console, &pid_file),
                Err(e) => {
                    let text = format!("OCI runtime create failed: {}", e.message);
                    Err(Failure::new(e.code, text))
                }
            };
            match made {
                Ok(pid) => {
                    let mut response = CreateTaskResponse::new();
                    response.pid = pid as u32;
                    shim.answer(reply, Ok(response));
                    shim.release(&id, "");
                }
                Err(e) if there => shim.unmake(&id, e, reply),
                Err(e) => {
                    shim.give_up(&id);
                    shim.respond(reply, Err(e));
                }
            }
        });
        let pid = self.execute(&runtime, command, true, then)?;
        if let Some(container) = self.containers.get_mut(&id) {
            container.making = Some(pid);
        }
        Ok(())
    }

    fn created(
        &mut self,
        r: &CreateTaskRequest,
        mut io: Io,
        console: Option<Console>,
        pid_file: &Path,
    ) -> Answer<i32> {
        let pid = read_pid(pid_file)?;
        let stray = self.take_stray(pid);
        let container = self.containers.get_mut(&r.id).ok_or_else(gone)?;
        if let Some(console) = console {
            container.init.terminal = Some(console.receive(&mut io)?);
        }
        match cgroup_of(pid) {
            Ok(cgroup) => {
                let events = fs::openat(cgroup.fd(), "memory.events", fs::O_RDONLY, 0);
                container.memory_events = events.ok();
                container.cgroup = Some(cgroup);
            }
            Err(e) => log::warn(format_args!(
                "container '{}' has no statistics: {e:#}",
                r.id
            )),
        }
        container.init.pid = pid;
        container.init.state = State::Created;
        container.init.held = stray;
        self.check_memory(&r.id); // what is polled has to be read once
        self.add_copies(std::mem::take(&mut io.copies));

        let mut event = event::TaskCreate::new();
        event.container_id = r.id.clone();
        event.bundle = r.bundle.clone();
        event.rootfs = r.rootfs.iter().filter_map(same).collect();
        let mut streams = event::TaskIO::new();
        streams.stdin = r.stdin.clone();
        streams.stdout = r.stdout.clone();
        streams.stderr = r.stderr.clone();
        streams.terminal = r.terminal;
        event.io = Some(streams).into();
        event.pid = pid as u32;
        self.publisher.publish("create", &event);
        Ok(pid)
    }

    /// Nobody waits any more for a container that is being made: whatever makes it ends.
    fn abandon(&mut self, id: &str) {
        let container = self.containers.get_mut(id);
        let Some(container) = container.filter(|c| c.init.state == State::Making) else {
            return;
        };
        container.abandoned = true;
        let serial = container.init.serial;
        match container.making {
            Some(pid) => _ = process::kill(pid, process::SIGKILL),
            None => self.kill_logger(serial),
        }
    }

    /// Deletes what the runtime has made, and tells why.
    fn unmake(&mut self, id: &str, why: Failure, reply: Reply) {
        let Some(container) = self.containers.get(id) else {
            return self.respond(reply, Err(why));
        };
        let runtime = container.runtime.clone();
        let mut command = runtime.command_without_bundle("delete");
        command.arg("--force").arg(id);
        let name = id.to_string();
        let then: Then = Box::new(move |shim, result| {
            if let Err(e) = result {
                log::warn(format_args!("delete '{name}': {}", e.message));
            }
            shim.give_up(&name);
            shim.respond(reply, Err(why));
        });
        if let Err(e) = self.spawn(&runtime, command, false, then) {
            self.give_up(id);
            self.respond(reply, Err(e));
        }
    }

    /// A container that could not be made leaves nothing.
    fn give_up(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            rootfs::unmount(&container.rootfs());
            self.kill_logger(container.init.serial);
        }
        if self.leaving && self.containers.is_empty() {
            self.stop();
        }
    }

    /// Goes on once the logger, if there is one, is ready.
    fn when_logged(&mut self, mut io: Io, then: Logged) {
        let Some(logger) = io.logger.take() else {
            return then(self, Ok(io));
        };
        let owner = io.owner;
        let (strict, fd) = self.add_logger(logger, owner);
        let key = self.next_serial();
        let then = Box::new(move |shim: &mut Shim, fd: OwnedFd| {
            let n = fs::read(fd.as_fd(), &mut [0]).unwrap_or(0);
            if strict && n == 0 {
                let text = "the logger ended before it was ready";
                then(shim, Err(Failure::new(Code::UNKNOWN, text)));
            } else {
                then(shim, Ok(io));
            }
        });
        self.parked.insert(key, Parked { owner, fd, then });
    }

    /// A process whose logger is still waited for need not be made any more.
    fn give_up_logger(&mut self, owner: u64) {
        if self.parked.values().any(|p| p.owner == owner) {
            self.kill_logger(owner);
        }
    }

    // start, exec

    fn start(&mut self, r: StartRequest, reply: Reply) -> Answer<()> {
        if !r.exec_id.is_empty() {
            return self.start_exec(r, reply);
        }
        let container = self.container(&r.id)?;
        if container.init.state != State::Created || container.init.starting {
            return Err(Failure::precondition(match container.init.state {
                State::Stopped => "cannot start a stopped process",
                _ => "cannot start a running process",
            }));
        }
        container.init.starting = true;
        let runtime = container.runtime.clone();
        let mut command = runtime.command("start");
        command.arg(&r.id);
        let id = r.id.clone();
        let then: Then = Box::new(move |shim, result| {
            let Some(container) = shim.containers.get_mut(&id) else {
                return shim.respond(reply, Err(gone()));
            };
            let pid = container.init.pid;
            match result {
                Ok(_) => {
                    container.init.state = State::Running;
                    let mut event = event::TaskStart::new();
                    event.container_id = id.clone();
                    event.pid = pid as u32;
                    shim.publisher.publish("start", &event);
                    shim.answer(reply, Ok(started(pid)));
                }
                Err(e) => {
                    let text = format!("OCI runtime start failed: {}", e.message);
                    shim.respond(reply, Err(Failure::new(e.code, text)));
                }
            }
            shim.release(&id, "");
        });
        let spawned = self.spawn(&runtime, command, false, then);
        if spawned.is_err() {
            self.release(&r.id, "");
        }
        spawned
    }

    fn exec(&mut self, r: ExecProcessRequest, reply: Reply) -> Answer<()> {
        let serial = self.next_serial();
        let container = self.container(&r.id)?;
        if container.execs.contains_key(&r.exec_id) {
            let text = format!("process '{}' already exists", r.exec_id);
            return Err(Failure::new(Code::ALREADY_EXISTS, text));
        }
        if container.ending || container.init.state != State::Running {
            return Err(not_running(&r.id));
        }
        let spec = process_spec(&r.spec.value, r.terminal)?;
        let stdio = Stdio {
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
        };
        let mut process = Process::new(serial, State::Created, stdio);
        process.spec = spec;
        container.execs.insert(r.exec_id.clone(), process);
        let mut event = event::TaskExecAdded::new();
        event.container_id = r.id;
        event.exec_id = r.exec_id;
        self.publisher.publish("exec-added", &event);
        self.done(reply)
    }

    fn start_exec(&mut self, r: StartRequest, reply: Reply) -> Answer<()> {
        let namespace = self.namespace.clone();
        let container = self.container(&r.id)?;
        if container.ending {
            return Err(not_running(&r.id));
        }
        let options = container.options.clone();
        let process = self.process(&r.id, &r.exec_id)?;
        if process.state != State::Created || process.starting {
            return Err(Failure::precondition("cannot start a process twice"));
        }
        let mut io = Io::open(
            process.serial,
            &process.stdio,
            &options,
            &namespace,
            &r.exec_id,
        )
        .context("create the streams")?;
        process.starting = true;
        process.hold_stdin(io.keeper.take());
        self.when_logged(
            io,
            Box::new(move |shim, io| {
                let (id, exec) = (r.id.clone(), r.exec_id.clone());
                let result = io.and_then(|io| shim.execute_exec(r, io, reply));
                if let Err(e) = result {
                    shim.exec_failed(&id, &exec);
                    shim.respond(reply, Err(e));
                }
            }),
        );
        Ok(())
    }

    fn execute_exec(&mut self, r: StartRequest, mut io: Io, reply: Reply) -> Answer<()> {
        let container = self.containers.get_mut(&r.id).ok_or_else(gone)?;
        let runtime = container.runtime.clone();
        let bundle = container.bundle.clone();
        let process = container.execs.get_mut(&r.exec_id).ok_or_else(gone)?;
        let name = format!("exec-{}", process.serial);
        let pid_file = bundle.join(format!("{name}.pid"));
        let spec = written(&process.spec)?;
        let console = Console::listen(&bundle, process)?;
        let mut command = runtime.command("exec");
        // its stdin may be the process's
        let spec_fd = OwnedFd::from(spec);
        command.arg("--process").arg("/proc/self/fd/3");
        process::pass_fds(&mut command, vec![spec_fd]);
        command.arg("--detach").arg("--pid-file").arg(&pid_file);
        if let Some(console) = &console {
            command.arg("--console-socket").arg(&console.name);
        }
        command.arg(&r.id);
        io.give(&mut command);
        let then: Then = Box::new(move |shim, result| {
            let made = result
                .map_err(|e| {
                    Failure::new(e.code, format!("OCI runtime exec failed: {}", e.message))
                })
                .and_then(|_| shim.exec_started(&r, io, console, &pid_file));
            let _ = std::fs::remove_file(&pid_file);
            match made {
                Ok(pid) => {
                    shim.answer(reply, Ok(started(pid)));
                    shim.release(&r.id, &r.exec_id);
                }
                Err(e) => {
                    shim.exec_failed(&r.id, &r.exec_id);
                    shim.respond(reply, Err(e));
                }
            }
        });
        self.spawn(&runtime, command, true, then)
    }

    fn exec_started(
        &mut self,
        r: &StartRequest,
        mut io: Io,
        console: Option<Console>,
        pid_file: &Path,
    ) -> Answer<i32> {
        let pid = read_pid(pid_file)?;
        let stray = self.take_stray(pid);
        let terminal = self.terminal_of(r, console, &mut io).inspect_err(|_| {
            if stray.is_none() {
                let _ = process::kill(pid, process::SIGKILL); // nobody would know of it
            }
        })?;
        let process = self.process(&r.id, &r.exec_id)?;
        process.terminal = terminal;
        process.pid = pid;
        process.spec = Vec::new();
        process.state = State::Running;
        process.held = stray;
        self.add_copies(std::mem::take(&mut io.copies));
        let mut event = event::TaskExecStarted::new();
        event.container_id = r.id.clone();
        event.exec_id = r.exec_id.clone();
        event.pid = pid as u32;
        self.publisher.publish("exec-started", &event);
        Ok(pid)
    }

    fn terminal_of(
        &mut self,
        r: &StartRequest,
        console: Option<Console>,
        io: &mut Io,
    ) -> Answer<Option<Terminal>> {
        self.process(&r.id, &r.exec_id)?;
        console.map(|c| c.receive(io)).transpose()
    }

    /// It never ran, and its end is not an event.
    fn exec_failed(&mut self, id: &str, exec: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Some(process) = container.execs.get_mut(exec) {
            process.starting = false;
            process.state = State::Stopped;
            process.exit = Some(Exit::now(husk::error::EXEC_FAILURE as u32));
            let (serial, waiters) = (process.serial, std::mem::take(&mut process.waiters));
            let kills = std::mem::take(&mut process.kills);
            self.kill_logger(serial);
            for (_, reply) in kills {
                self.respond(reply, Err(finished()));
            }
            for waiter in waiters {
                self.respond(
                    waiter,
                    Err(Failure::precondition("the process did not start")),
                );
            }
        }
        self.conclude_container(id);
    }

    // ends

    /// A child has ended. False: it is nobody's that is known.
    pub fn process_ended(&mut self, pid: i32, exit: Exit) -> bool {
        let found = self
            .containers
            .iter()
            .find_map(|(id, c)| Some((id.clone(), c.exec_of(pid)?.to_string())));
        let Some((id, exec)) = found else {
            return false;
        };
        let container = self.containers.get_mut(&id).expect("just found");
        let process = container.process(&exec).expect("just found");
        process.held = Some(exit);
        if !process.starting {
            self.ended(&id, &exec);
        }
        true
    }

    /// Its start has been told: an end that came meanwhile may be told too.
    fn release(&mut self, id: &str, exec: &str) {
        let process = self.containers.get_mut(id).and_then(|c| c.process(exec));
        let Some(process) = process else { return };
        process.starting = false;
        let (pid, over) = (process.pid, process.held.is_some());
        for (signal, reply) in std::mem::take(&mut process.kills) {
            let sent = if over {
                Err(finished())
            } else {
                process::kill(pid, signal).map_err(Failure::from)
            };
            self.answer(reply, sent.map(|()| Empty::new()));
        }
        if over {
            self.ended(id, exec);
        }
    }

    /// The first process's end is the last to be told, for containerd takes it for the container's.
    fn ended(&mut self, id: &str, exec: &str) {
        if !exec.is_empty() {
            self.conclude(id, exec);
            return self.conclude_container(id);
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.ending = true;
        let runtime = shares_pids(&container.bundle).then(|| container.runtime.clone());
        let execs: Vec<u64> = container.execs.values().map(|p| p.serial).collect();
        execs.into_iter().for_each(|e| self.give_up_logger(e));
        if let Some(runtime) = runtime {
            let mut command = runtime.command("kill");
            command.args(["--all", id, "KILL"]);
            let then: Then = Box::new(|_, result| {
                if let Err(e) = result {
                    log::debug(format_args!(
                        "kill what the first process left: {}",
                        e.message
                    ));
                }
            });
            if let Err(e) = self.spawn(&runtime, command, false, then) {
                log::warn(format_args!("container '{id}': {}", e.message));
            }
        }
        self.conclude_container(id);
    }

    /// Tells the container's end, if it has come and nothing else is alive in it.
    fn conclude_container(&mut self, id: &str) {
        let over = |c: &&mut Container| c.ending && !c.execs.values().any(Process::is_alive);
        if self.containers.get_mut(id).filter(over).is_some() {
            self.conclude(id, "");
        }
    }

    fn conclude(&mut self, id: &str, exec: &str) {
        self.check_memory(id);
        let process = self.containers.get_mut(id).and_then(|c| c.process(exec));
        let Some(process) = process else { return };
        let Some(exit) = process.held.take() else {
            return;
        };
        process.state = State::Stopped;
        process.exit = Some(exit.clone());
        process.stdin = None;
        if let Some(terminal) = &mut process.terminal {
            terminal.slave = None;
        }
        let (pid, serial) = (process.pid, process.serial);
        let waiters = std::mem::take(&mut process.waiters);
        self.drop_copies(serial, |c| !c.output);
        let mut event = event::TaskExit::new();
        event.container_id = id.into();
        event.id = if exec.is_empty() { id } else { exec }.into();
        event.pid = pid as u32;
        event.exit_status = exit.status;
        event.exited_at = Some(exit.at.clone()).into();
        self.publisher.publish("exit", &event);
        for waiter in waiters {
            self.answer(waiter, Ok(waited(&exit)));
        }
    }

    /// Tells of kills for want of memory that are new.
    pub fn check_memory(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(events) = &container.memory_events else {
            return;
        };
        let mut buf = [0; 512];
        let kills = fs::pread(events.as_fd(), &mut buf).ok().and_then(|n| {
            let text = std::str::from_utf8(&buf[..n]).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "))?;
            line.parse::<u64>().ok()
        });
        let Some(kills) = kills else {
            container.memory_events = None; // the cgroup is gone
            return;
        };
        if kills > container.oom_kills {
            container.oom_kills = kills;
            let mut event = event::TaskOOM::new();
            event.container_id = id.into();
            self.publisher.publish("oom", &event);
        }
    }

    // delete

    fn delete(&mut self, r: DeleteRequest, reply: Reply) -> Answer<()> {
        if r.exec_id.is_empty() {
            self.abandon(&r.id);
        }
        let process = self.process(&r.id, &r.exec_id)?;
        process.may_be_deleted()?;
        // what was never started has nothing to say, and its streams open until it is deleted
        let limit = match process.state {
            State::Created => Duration::ZERO,
            _ => DRAIN,
        };
        let serial = process.serial;
        let (id, exec) = (r.id, r.exec_id);
        self.drain(
            serial,
            limit,
            Box::new(move |shim| {
                let process = shim.process(&id, &exec);
                let result = process.and_then(|p| p.may_be_deleted()).and_then(|()| {
                    if exec.is_empty() {
                        shim.delete_container(&id, reply)
                    } else {
                        shim.delete_exec(&id, &exec, reply)
                    }
                });
                if let Err(e) = result {
                    shim.respond(reply, Err(e));
                }
            }),
        );
        Ok(())
    }

    fn delete_exec(&mut self, id: &str, exec: &str, reply: Reply) -> Answer<()> {
        let removed = self.container(id)?.execs.remove(exec);
        let process = removed.ok_or_else(|| Failure::not_found("process does not exist"))?;
        self.end_logger(process.serial);
        self.answer(reply, Ok(deleted(&process)));
        Ok(())
    }

    fn delete_container(&mut self, id: &str, reply: Reply) -> Answer<()> {
        let runtime = self.container(id)?.runtime.clone();
        let mut command = runtime.command("delete");
        command.arg(id);
        let id = id.to_string();
        let then: Then = Box::new(move |shim, result| match result {
            Err(e) if !e.message.contains("does not exist") => shim.respond(reply, Err(e)),
            _ => shim.container_deleted(&id, reply),
        });
        self.spawn(&runtime, command, false, then)
    }

    fn container_deleted(&mut self, id: &str, reply: Reply) {
        let Some(mut container) = self.containers.remove(id) else {
            return self.respond(reply, Err(gone()));
        };
        rootfs::unmount(&container.rootfs());
        self.end_logger(container.init.serial);
        for process in container.execs.values() {
            self.drop_copies(process.serial, |_| true);
            self.end_logger(process.serial);
        }
        // one that was never started ends by the deletion itself
        if container.init.exit.is_none() {
            container.init.exit = container.init.held.take();
        }
        let response = deleted(&container.init);
        let mut event = event::TaskDelete::new();
        event.container_id = id.into();
        event.pid = response.pid;
        event.exit_status = response.exit_status;
        event.exited_at = response.exited_at.clone();
        self.publisher.publish("delete", &event);
        self.answer(reply, Ok(response));
    }

    // the rest

    fn state(&mut self, r: StateRequest, reply: Reply) -> Answer<()> {
        let container = self.container(&r.id)?;
        let mut response = StateResponse::new();
        response.bundle = container.bundle.to_string_lossy().into_owned();
        let paused = container.paused;
        let process = self.process(&r.id, &r.exec_id)?;
        response.id = if r.exec_id.is_empty() {
            r.id
        } else {
            r.exec_id.clone()
        };
        response.exec_id = r.exec_id;
        response.pid = process.pid as u32;
        response.status = match process.state {
            State::Making | State::Created => Status::CREATED,
            State::Running if paused => Status::PAUSED,
            State::Running => Status::RUNNING,
            State::Stopped => Status::STOPPED,
        }
        .into();
        response.stdin = process.stdio.stdin.clone();
        response.stdout = process.stdio.stdout.clone();
        response.stderr = process.stdio.stderr.clone();
        response.terminal = process.stdio.terminal;
        if let Some(exit) = &process.exit {
            response.exit_status = exit.status;
            response.exited_at = Some(exit.at.clone()).into();
        }
        self.answer(reply, Ok(response));
        Ok(())
    }

    fn wait_for(&mut self, r: WaitRequest, reply: Reply) -> Answer<()> {
        let process = self.process(&r.id, &r.exec_id)?;
        match &process.exit {
            Some(exit) => {
                let response = waited(exit);
                self.answer(reply, Ok(response));
            }
            None => process.waiters.push(reply),
        }
        Ok(())
    }

    fn kill(&mut self, r: KillRequest, reply: Reply) -> Answer<()> {
        let process = self.process(&r.id, &r.exec_id)?;
        if process.exit.is_some() {
            return Err(finished());
        }
        if !r.exec_id.is_empty() {
            if process.starting {
                let owner = process.serial;
                process.kills.push((r.signal as i32, reply));
                self.give_up_logger(owner);
                return Ok(());
            }
            if process.pid == 0 {
                return Err(Failure::precondition("process not created"));
            }
            // not yet reaped, so the pid is still its own
            process::kill(process.pid, r.signal as i32)?;
            return self.done(reply);
        }
        let runtime = self.container(&r.id)?.runtime.clone();
        let mut command = runtime.command("kill");
        if r.all {
            command.arg("--all");
        }
        command.arg(&r.id).arg(r.signal.to_string());
        let then: Then = Box::new(move |shim, result| {
            let result = result
                .map(|_| Empty::new())
                .map_err(|e| kill_failure(&e.message));
            shim.answer(reply, result);
        });
        self.spawn(&runtime, command, false, then)
    }

    fn pause(&mut self, r: PauseRequest, reply: Reply) -> Answer<()> {
        self.freezer(r.id, "pause", reply)
    }

    fn resume(&mut self, r: ResumeRequest, reply: Reply) -> Answer<()> {
        self.freezer(r.id, "resume", reply)
    }

    fn freezer(&mut self, id: String, verb: &'static str, reply: Reply) -> Answer<()> {
        let container = self.container(&id)?;
        if container.init.state != State::Running {
            return Err(Failure::precondition(format!(
                "cannot {verb}: container '{id}' is not running"
            )));
        }
        let runtime = container.runtime.clone();
        let mut command = runtime.command(verb);
        command.arg(&id);
        let then: Then = Box::new(move |shim, result| {
            let done = result.is_ok();
            if let Some(container) = shim.containers.get_mut(&id).filter(|_| done) {
                container.paused = verb == "pause";
                if container.paused {
                    let mut event = event::TaskPaused::new();
                    event.container_id = id.clone();
                    shim.publisher.publish("paused", &event);
                } else {
                    let mut event = event::TaskResumed::new();
                    event.container_id = id.clone();
                    shim.publisher.publish("resumed", &event);
                }
            }
            let text = |e: Failure| {
                Failure::new(e.code, format!("OCI runtime {verb} failed: {}", e.message))
            };
            shim.answer(reply, result.map(|_| Empty::new()).map_err(text));
        });
        self.spawn(&runtime, command, false, then)
    }

    fn pids(&mut self, r: PidsRequest, reply: Reply) -> Answer<()> {
        let runtime = self.container(&r.id)?.runtime.clone();
        let mut command = runtime.command("ps");
        command.args(["--format", "json"]).arg(&r.id);
        let then: Then = Box::new(move |shim, result| {
            let response = result.and_then(|printed| {
                let pids: Option<Vec<u32>> = serde_json::from_slice(&printed)
                    .context("parse the runtime's list of processes")?;
                shim.processes(&r.id, pids.unwrap_or_default())
            });
            shim.answer(reply, response);
        });
        self.spawn(&runtime, command, false, then)
    }

    fn processes(&mut self, id: &str, pids: Vec<u32>) -> Answer<PidsResponse> {
        let container = self.container(id)?;
        let mut response = PidsResponse::new();
        for pid in pids {
            let mut info = ProcessInfo::new();
            info.pid = pid;
            if let Some(exec) = container.exec_of(pid as i32).filter(|e| !e.is_empty()) {
                let mut details = ProcessDetails::new();
                details.exec_id = exec.into();
                let any = events::any("containerd.runc.v1.ProcessDetails", &details);
                info.info = any.ok().into();
            }
            response.processes.push(info);
        }
        Ok(response)
    }

    fn update(&mut self, r: UpdateTaskRequest, reply: Reply) -> Answer<()> {
        let runtime = self.container(&r.id)?.runtime.clone();
        let mut command = runtime.command("update");
        command.args(["--resources", "-"]).arg(&r.id);
        command.stdin(written(&r.resources.value)?);
        let then: Then = Box::new(move |shim, result| {
            let text = |e: Failure| {
                Failure::new(e.code, format!("OCI runtime update failed: {}", e.message))
            };
            shim.answer(reply, result.map(|_| Empty::new()).map_err(text));
        });
        self.spawn(&runtime, command, false, then)
    }

    fn stats(&mut self, r: StatsRequest, reply: Reply) -> Answer<()> {
        let container = self.container(&r.id)?;
        let cgroup = container.cgroup.as_ref();
        let cgroup = cgroup.ok_or_else(|| Failure::not_found("cgroup does not exist"))?;
        let any = events::any(metrics::TYPE, &metrics::of(cgroup));
        let mut response = StatsResponse::new();
        response.stats = any.ok().into();
        self.answer(reply, Ok(response));
        Ok(())
    }

    fn resize(&mut self, r: ResizePtyRequest, reply: Reply) -> Answer<()> {
        let process = self.process(&r.id, &r.exec_id)?;
        if let Some(terminal) = &process.terminal {
            let size = Size {
                rows: r.height as u16,
                columns: r.width as u16,
            };
            tty::set_size((*terminal.master).as_fd(), size)?;
        }
        self.done(reply)
    }

    /// Whoever writes may be done before the runtime has made the process.
    fn close_io(&mut self, r: CloseIORequest, reply: Reply) -> Answer<()> {
        let container = self.containers.get_mut(&r.id);
        let process = container.and_then(|c| c.process(&r.exec_id));
        let process = process.ok_or_else(|| Failure::not_found("process does not exist"))?;
        process.stdin = None;
        process.stdin_closed = true;
        self.done(reply)
    }

    fn connect(&mut self, r: ConnectRequest, reply: Reply) -> Answer<()> {
        let mut response = ConnectResponse::new();
        response.shim_pid = process::pid() as u32;
        response.task_pid = self.container(&r.id).map_or(0, |c| c.init.pid) as u32;
        self.answer(reply, Ok(response));
        Ok(())
    }

    /// The pod's shim leaves with its last container.
    fn shutdown(&mut self, r: ShutdownRequest, reply: Reply) -> Answer<()> {
        self.abandon(&r.id);
        // nobody asks again when the last one that is being made has been given up
        self.leaving = self.containers.values().all(|c| c.abandoned);
        if self.containers.is_empty() || r.now {
            self.stop();
        }
        self.done(reply)
    }
}

fn checkpoint(_: CheckpointTaskRequest) -> Answer<()> {
    let text = "checkpoint: not in this shim yet";
    Err(Failure::new(Code::UNIMPLEMENTED, text))
}

/// process.json, with the terminal that the request asks for apart from it.
fn process_spec(json: &[u8], terminal: bool) -> Answer<Vec<u8>> {
    let spec: serde_json::Result<serde_json::Map<_, _>> = serde_json::from_slice(json);
    let mut spec = spec.map_err(|e| {
        let text = format!("parse the process: {e}; it has to be an object as in process.json");
        Failure::new(Code::INVALID_ARGUMENT, text)
    })?;
    spec.insert("terminal".into(), terminal.into());
    Ok(serde_json::Value::from(spec).to_string().into_bytes())
}

fn too_late() -> Failure {
    let text = "the container was not made in time; see what its hooks or its logger wait for";
    Failure::new(Code::DEADLINE_EXCEEDED, text)
}

fn gone() -> Failure {
    Failure::not_found("the container has been deleted meanwhile")
}

fn finished() -> Failure {
    Failure::not_found("process already finished")
}

fn not_running(id: &str) -> Failure {
    Failure::precondition(format!("container {id} init process is not running"))
}

/// What there is nothing to kill of any more is not found, which containerd's clients take for done.
fn kill_failure(message: &str) -> Failure {
    let lower = message.to_lowercase();
    let over = ["not running", "already finished", "no such process"];
    if over.iter().any(|words| lower.contains(words)) {
        finished()
    } else if lower.contains("does not exist") {
        Failure::not_found(format!("no such container: {message}"))
    } else {
        Failure::new(Code::UNKNOWN, message)
    }
}

fn started(pid: i32) -> StartResponse {
    let mut response = StartResponse::new();
    response.pid = pid as u32;
    response
}

fn waited(exit: &Exit) -> WaitResponse {
    let mut response = WaitResponse::new();
    response.exit_status = exit.status;
    response.exited_at = Some(exit.at.clone()).into();
    response
}

fn deleted(process: &Process) -> DeleteResponse {
    let mut response = DeleteResponse::new();
    response.pid = process.pid as u32;
    if let Some(exit) = &process.exit {
        response.exit_status = exit.status;
        response.exited_at = Some(exit.at.clone()).into();
    }
    response
}

/// The same message of another package.
fn same<M: Message>(mount: &Mount) -> Option<M> {
    M::parse_from_bytes(&mount.write_to_bytes().ok()?).ok()
}

fn read_pid(file: &Path) -> anyhow::Result<i32> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the runtime's pid file '{}'", file.display()))?;
    let pid = text.trim().parse();
    pid.with_context(|| format!("'{}' is no pid", text.trim()))
}

fn cgroup_of(pid: i32) -> anyhow::Result<CgroupDir> {
    let mountpoint = husk::host::cgroup_mount()?.context("there is no cgroup2 mount")?;
    CgroupDir::of_pid(&mountpoint, pid)
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    cgroups_path: String,
    namespaces: Vec<Namespace>,
}

#[derive(serde::Deserialize)]
struct Namespace {
    r#type: String,
    path: Option<String>,
}

fn linux_of(bundle: &Path) -> Linux {
    #[derive(serde::Deserialize)]
    struct Config {
        linux: Option<Linux>,
    }
    let text = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let config: Option<Config> = serde_json::from_slice(&text).ok();
    config.and_then(|c| c.linux).unwrap_or_default()
}

/// Whether processes outlive the container's first one: it has no pid namespace of its own.
fn shares_pids(bundle: &Path) -> bool {
    let own = |n: &Namespace| n.r#type == "pid" && n.path.as_deref().unwrap_or("").is_empty();
    !linux_of(bundle).namespaces.iter().any(own)
}

/// Whether the cgroup's path is `slice:prefix:name`. Docker has options for runc's shim alone, and says nothing else of its driver
/// to another.
fn names_a_scope(bundle: &Path) -> bool {
    let path = linux_of(bundle).cgroups_path;
    let parts: Vec<&str> = path.split(':').collect();
    matches!(parts[..], [slice, _, name] if slice.ends_with(".slice") && !name.is_empty())
}

/// The socket over which the runtime sends a terminal's master. It is in the bundle, which is the runtime's working directory.
struct Console {
    name: String,
    path: PathBuf,
    listener: OwnedFd,
}

impl Console {
    fn listen(bundle: &Path, process: &Process) -> Answer<Option<Console>> {
        if !process.stdio.terminal {
            return Ok(None);
        }
        let name = format!("pty-{}.sock", process.serial);
        let dir = fs::open(bundle, fs::O_PATH | fs::O_DIRECTORY, 0)?;
        let listener = socket::listen(&short_path(&dir, &name), socket::Kind::Stream)?;
        Ok(Some(Console {
            path: bundle.join(&name),
            name,
            listener,
        }))
    }

    /// The runtime has ended well, so what it sent is here.
    fn receive(&self, io: &mut Io) -> Answer<Terminal> {
        fs::set_nonblocking(self.listener.as_fd())?;
        let connection =
            socket::accept(self.listener.as_fd()).context("the runtime sent no terminal")?;
        fs::set_nonblocking(connection.as_fd())?;
        let (_, fds) = socket::recv(connection.as_fd(), &mut [0; 256])?;
        let master = fds
            .into_iter()
            .next()
            .context("the runtime sent no terminal")?;
        let master = Rc::new(master);
        io.attach(&master)?;
        Ok(Terminal {
            slave: tty::open_peer((*master).as_fd()).ok(),
            master,
        })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_an_object() {
        let spec = process_spec(br#"{"terminal": 7, "args": ["x"]}"#, true).unwrap();
        assert_eq!(spec, br#"{"args":["x"],"terminal":true}"#);
        for odd in [
            "", "null", "true", "1e400", "\"x\"", "[]", "[{}]", "{\"a\"", "\0",
        ] {
            let e = process_spec(odd.as_bytes(), false).unwrap_err();
            assert_eq!(e.code, Code::INVALID_ARGUMENT, "{odd}: {}", e.message);
        }
        let deep = "[".repeat(1 << 20);
        assert!(process_spec(deep.as_bytes(), false).is_err());
    }
}
