//! What a plan says, done: one room a feature, named as in [`crate::plan`]. A room takes no decisions and never imports another room.

pub mod console;
pub mod devices;
pub mod hooks;
pub mod intel_rdt;
pub mod labels;
pub mod landlock;
pub mod mounts;
pub mod net_devices;
pub mod notify;
pub mod paths;
pub mod process;
pub mod rootfs;
pub mod seccomp;
pub mod sysctl;
pub mod users;
