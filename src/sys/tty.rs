//! Pseudo-terminals: ioctl_tty(2).

use super::fs::own;
use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Terminal size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

fn winsize(size: Size) -> libc::winsize {
    libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Unlocks the slave of a new master; until then it cannot be opened.
pub fn unlock(master: BorrowedFd) -> Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &zero) };
    check(ret as libc::c_long, || "ioctl TIOCSPTLCK".into()).map(drop)
}

/// Opens the slave without going by any path (Linux 4.13).
pub fn open_peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no pointers: the argument is the flags themselves.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check(ret as libc::c_long, || "ioctl TIOCGPTPEER".into()).map(own)
}

pub fn size(fd: BorrowedFd) -> Result<Size> {
    let mut ws = winsize(Size::default());
    // SAFETY: the kernel fills a whole struct winsize.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut ws) };
    check(ret as libc::c_long, || "ioctl TIOCGWINSZ".into()).map(|_| Size {
        rows: ws.ws_row,
        columns: ws.ws_col,
    })
}

pub fn set_size(fd: BorrowedFd, size: Size) -> Result<()> {
    let ws = winsize(size);
    // SAFETY: the kernel reads a whole struct winsize.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &ws) };
    check(ret as libc::c_long, || {
        format!("ioctl TIOCSWINSZ {}x{}", size.rows, size.columns)
    })
    .map(drop)
}

/// Makes a terminal the controlling one of this session, whose leader the caller is and which has none yet.
pub fn set_controlling(fd: BorrowedFd) -> Result<()> {
    // SAFETY: no pointers.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(ret as libc::c_long, || "ioctl TIOCSCTTY".into()).map(drop)
}

pub fn is_terminal(fd: BorrowedFd) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::isatty(fd.as_raw_fd()) == 1 }
}

/// A terminal's modes, as they were.
pub struct Modes(libc::termios);

fn modes(fd: BorrowedFd) -> Result<libc::termios> {
    // SAFETY: struct termios is plain data, for which zeroes are a value; tcgetattr fills it.
    let mut t: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole struct termios.
    let ret = unsafe { libc::tcgetattr(fd.as_raw_fd(), &mut t) };
    check(ret as libc::c_long, || "tcgetattr".into()).map(|_| t)
}

fn set_modes(fd: BorrowedFd, t: &libc::termios) -> Result<()> {
    // SAFETY: the pointer is to a whole struct termios.
    let ret = unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, t) };
    check(ret as libc::c_long, || "tcsetattr".into()).map(drop)
}

/// Passes every byte of input through unchanged (termios(3), cfmakeraw), and gives the modes to go back to. Output is still
/// processed: the container's own terminal ends lines with a line feed alone.
pub fn set_raw(fd: BorrowedFd) -> Result<Modes> {
    let before = modes(fd)?;
    let mut raw = before;
    // SAFETY: the pointer is to a whole struct termios.
    unsafe { libc::cfmakeraw(&mut raw) };
    raw.c_oflag |= libc::OPOST;
    set_modes(fd, &raw)?;
    Ok(Modes(before))
}

pub fn restore(fd: BorrowedFd, modes: &Modes) -> Result<()> {
    set_modes(fd, &modes.0)
}

/// Ends lines with a line feed alone, as `run` does with the terminal that it passes on itself.
pub fn clear_onlcr(fd: BorrowedFd) -> Result<()> {
    let mut t = modes(fd)?;
    t.c_oflag &= !libc::ONLCR;
    set_modes(fd, &t)
}
