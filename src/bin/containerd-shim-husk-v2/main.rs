//! containerd's shim for husk, `io.containerd.husk.v2`: one process a pod, which makes, watches and ends its containers by
//! executing `husk`, and carries their output.
//!
//! # The house
//!
//! | room | what it does |
//! |------|--------------|
//! | [`args`] | the command line, as data |
//! | [`bootstrap`] | `start`: finds the pod's shim or starts one, and says where it listens |
//! | [`actions`] | `delete` after a shim's death, `-info`, `-v` |
//! | [`server`] | the one loop: what is ready is done; it waits nowhere else |
//! | [`service`] | the methods of the task service |
//! | [`task`] | containers and their processes, as data |
//! | [`runtime`] | the runtime's command line, its options and its last words |
//! | [`rootfs`] | the mounts that containerd hands over |
//! | [`io`] | standard streams, terminals, loggers |
//! | [`events`] | what containerd is told unasked, in order |
//! | [`metrics`] | a cgroup's statistics as a message |
//! | [`ttrpc`] | frames on a socket; the messages are containerd-shim-protos' |
//!
//! # Choices
//!
//! - **One thread.** Whatever takes time is a child that executes husk, a descriptor or a moment that the loop waits for, and
//!   what comes after it is a closure. So a pod costs a megabyte, a container in it some kilobytes, and no order needs a lock.
//! - **ttrpc's own server is not used**: it has a thread for each call that waits, and `Wait` does for as long as a container runs.
//! - **A command that makes a process is killed** when nobody waits for what it makes, and with the shim: in a hook that hangs it would keep
//!   the container's lock for ever. `husk delete --force` takes away what it leaves.
//! - **A reply that is due later is a [`ttrpc::Reply`]**, two numbers; to a connection that is gone it is dropped.

#![cfg_attr(not(test), no_main)]
#![deny(unsafe_code)]

mod actions;
mod args;
mod bootstrap;
mod events;
mod io;
mod metrics;
mod rootfs;
mod runtime;
mod server;
mod service;
mod task;
mod ttrpc;

use args::{Action, Flags};
use husk::error;
use husk::sys::start::Arguments;

#[cfg(not(test))]
#[allow(unsafe_code)] // the macro's: a program has one start
mod start {
    husk::program!(super::run);
}

#[cfg_attr(test, allow(dead_code))]
fn run(arguments: Arguments) -> i32 {
    let result = Flags::parse(arguments.iter().skip(1)).and_then(|flags| match flags.action {
        Action::Version => actions::version(),
        Action::Info => actions::info(),
        Action::Start => bootstrap::start(&flags),
        Action::Delete => actions::delete(&flags),
        Action::Serve => server::serve(&flags),
    });
    match result {
        Ok(()) => 0,
        Err(e) => {
            // containerd shows what a failed shim has written
            husk::log::error_as_is(&format!("{}: {}", actions::NAME, error::text(&e)));
            error::FAILURE
        }
    }
}
