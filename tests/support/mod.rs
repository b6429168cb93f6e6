//! What the tests are made of.

pub mod bundle;
pub mod guard;
pub mod mountinfo;
pub mod needs;
pub mod process;
pub mod pty;
pub mod runner;

pub use bundle::{Bundle, Container};
pub use needs::Need::*;
pub use needs::{husk_only, is_husk, needs, needs_cgroupfs, runc_fails, runc_since, skip};
pub use process::{Cmd, Output, cgroup, dir, keep_fds, wait_until};
pub use serde_json::{Value, json};

/// The list of an area's tests; a function left out of it is dead code, which the compiler reports.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;
