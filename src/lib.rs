//! husk: a daemonless OCI container runtime.
//!
//! `config.json` + facts about the host → a validated [`plan::Plan`] (pure data: every decision is taken there, and it is
//! testable without root) → two short ordered lists of small privileged steps ([`launch`]: the parent's and the container
//! init's) that take no decisions.
//!
//! # The house
//!
//! | room | what it does | what it may use |
//! |------|--------------|-----------------|
//! | [`cli`] | the command line, as data | |
//! | [`cmd`] | one file a command: lock → load → call → print | all rooms |
//! | [`config`], [`host`] | the two inputs of a plan: JSON, and facts about the host | [`sys`] |
//! | [`plan`] | every decision; one room a feature | no system call, no file, no environment |
//! | [`launch`] | the parent's list, init's list, `exec`, the clones between them, their messages, the gate | [`apply`], [`cgroup`] |
//! | [`apply`] | what the plan says, done; one room a feature | [`sys`], never another room |
//! | [`cgroup`] | the container's cgroup, by descriptor | [`sys`] |
//! | [`root`] | the container's root, by descriptor: every path of an image is resolved there | [`sys`] |
//! | [`state`] | facts kept between commands; a status is computed, never stored | [`sys`] |
//! | [`foreground`] | signals and the terminal of `run` and `exec` | [`sys`] |
//! | [`seal`] | husk's own binary, out of the container's reach | [`sys`] |
//! | [`sys`] | the kernel, thinly wrapped: the only unsafe code | |
//!
//! # Rules
//!
//! - One thread until the last clone ([`sys::clone::clone3`] checks it), so that the child may allocate. It leaves by execve or
//!   `_exit` only.
//! - Every descriptor is close-on-exec from birth; a child closes all that it does not need before anything else, and the
//!   state directory's lock with it.
//! - The process that becomes the container's is not dumpable from before it joins a namespace or touches a file of the container's
//!   until execve.
//! - Nothing inside the root file system is addressed by a path twice: a path becomes a descriptor once ([`root::Root`]), every mount
//!   is a descriptor whose attributes are set before it can be seen, and procfs is only used through [`root::Proc`].
//! - Every field of a config is applied, refused by its JSON path, or warned about where the specification says so.
//! - An error is returned or logged, never both; it keeps the kernel's words, and ends with what to do.
//! - What a command makes it undoes on failure, in reverse; what a killed husk leaves, `delete --force` finds: the state
//!   directory comes first and names all that follows.
//!
//! # Choices
//!
//! - **The gate of a created container is a listening socket** ([`launch::gate`]): `start` speaks over it what `run` speaks over its own
//!   channel, so that one protocol carries both, and no error after the gate is lost.
//! - **A record's name says whether it is complete**: `creating.json` becomes `state.json` by one rename.
//! - **The host's mounts are not copied** where the kernel can do without (Linux 7.0, [`plan::rootfs::attaches`]): the tree is made of detached
//!   mounts in the host's mount namespace, where all paths still mean what the config means by them, and attached in an empty one
//!   at the end. Entering a namespace of root.path first (as crun does by OPEN_TREE_NAMESPACE) would leave every path that is looked up
//!   later to the image, and a source that cannot be attached would be found when there is no way back.
//! - **Parent and init share the dear work**: the parent makes the network namespace, which takes the kernel as long as all mounts, and init the
//!   mounts meanwhile, in namespaces that it has made itself ([`plan::namespaces::Namespaces::by_init`]).
//! - **Functions lie in the order of their use** (`src/order.ld`, written by `hack/order`): a short command is mostly page faults.
//! - **No libpathrs**: openat2(2) and a walk by descriptor are what is needed of it; its procfs handle would be one more mount on
//!   each start. A kernel without openat2(2) is told so.
//! - **No D-Bus library**: zbus would be 1 MB of a 3.4 MB binary and brings threads; rustbus, which does without, 0.1 MB, and has not moved
//!   since nix 0.26. What systemd is asked takes three messages ([`cgroup`]); nothing of it runs without `--systemd-cgroup`.
//! - **No libseccomp, no C library at all**: a static binary at a fixed address, which starts in half the time of a relocated one.

#![deny(unsafe_code)]

pub mod apply;
pub mod cgroup;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod error;
pub mod foreground;
pub mod host;
#[cfg(any(test, fuzzing))]
pub mod hostile;
pub mod launch;
pub mod log;
pub mod plan;
pub mod root;
pub mod seal;
pub mod state;
#[allow(unsafe_code)]
pub mod sys;

/// The version of the runtime specification that husk implements.
pub const OCI_VERSION: &str = "1.3.0";
