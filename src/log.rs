//! What husk tells while it works: lines as runc writes them, into the file of `--log` or on standard error.
//!
//! containerd, conmon and Podman show the last line of level error in that file, so there is exactly one such line, written
//! last, by `main`. Everything else is a warning or a debug line. Works in a forked child too, until [`close`].

use crate::error::{printable, printable_json};
use crate::sys;
use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// From the least to the most that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    Error,
    #[value(aliases = ["warn", "info"])]
    Warning,
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        }
    }
}

struct Log {
    /// Opened once, with `O_APPEND`: several husks write to one file.
    file: Option<OwnedFd>,
    format: Format,
    level: Level,
    /// For debug lines.
    begun: Option<Instant>,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    file: None,
    format: Format::Text,
    level: Level::Warning,
    begun: None,
});

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets where lines go and how they look. Without a file they go to standard error.
pub fn init(file: Option<&Path>, format: Format, level: Level) -> Result<()> {
    use sys::fs::{O_APPEND, O_CREAT, O_WRONLY};
    let mut log = log();
    (log.format, log.level) = (format, level);
    log.begun = (level == Level::Debug).then(Instant::now);
    if let Some(path) = file {
        let fd = sys::fs::open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644)
            .context("open the log; give --log a file that can be written")?;
        log.file = Some(fd);
    }
    Ok(())
}

/// Lets go of the log file; later lines go to standard error. For a child that is about to become the container's.
pub fn close() {
    log().file = None;
}

/// The log file's descriptor, for a child that closes all others.
pub fn raw_fd() -> Option<RawFd> {
    log().file.as_ref().map(AsRawFd::as_raw_fd)
}

pub fn debug_enabled() -> bool {
    log().level == Level::Debug
}

/// Something went less well than asked, and husk goes on.
pub fn warn(message: impl Display) {
    if log().level >= Level::Warning {
        line(Level::Warning, &message.to_string());
    }
}

/// What husk does, for `--debug`; the message is only formatted then (`format_args!`).
pub fn debug(message: impl Display) {
    if debug_enabled() {
        line(Level::Debug, &message.to_string());
    }
}

/// A step of the two lists in [`crate::launch`] begins: with the time since husk began, which its child counts on.
pub fn step(number: u8, what: &str) {
    let begun = log().begun;
    if let Some(begun) = begun {
        let micros = begun.elapsed().as_micros();
        debug(format_args!("step {number}: {what} (+{micros} µs)"));
    }
}

/// The one error line. With a log file it is also on standard error, for the person at the terminal.
pub fn error(message: &str) {
    plain_line(Level::Error, message, true);
}

/// The same without a word of husk's before it.
pub fn error_as_is(message: &str) {
    plain_line(Level::Error, message, false);
}

/// What the person at the terminal is told without being asked, and without it being husk's failure.
pub fn notice(message: &str) {
    plain_line(Level::Warning, message, false);
}

fn plain_line(level: Level, message: &str, marked: bool) {
    let (to_file, format) = {
        let log = log();
        (log.file.is_some(), log.format)
    };
    if to_file || format == Format::Json {
        line(level, message);
    }
    if to_file || format == Format::Text {
        let prefix = if marked { prefix(to_file) } else { "" };
        let _ = writeln!(std::io::stderr(), "{prefix}{}", printable(message.trim()));
    }
}

/// A word to look for. A program that reads the log file shows its user the message alone, from wherever it has it.
fn prefix(to_file: bool) -> &'static str {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    prefix_for(std::io::stderr().is_terminal(), no_color, to_file)
}

fn prefix_for(terminal: bool, no_color: bool, to_file: bool) -> &'static str {
    match (terminal, no_color) {
        (true, false) => "\x1b[1;31merror:\x1b[0m ",
        (false, _) if to_file => "",
        _ => "error: ",
    }
}

/// A log that cannot be written is no reason to fail, and there is nowhere to say so.
fn line(level: Level, message: &str) {
    let log = log();
    let time = rfc3339(now().0);
    let line = match log.format {
        Format::Text => text_line(level, message, &time),
        Format::Json => json_line(level, message, &time),
    };
    match &log.file {
        Some(fd) => drop(sys::fs::write(fd.as_fd(), line.as_bytes())),
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

fn text_line(level: Level, message: &str, time: &str) -> String {
    let mut quoted = String::with_capacity(message.len() + 2);
    for c in message.trim().chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    let level = level.name();
    format!(
        "time=\"{time}\" level={level} msg=\"{}\"\n",
        printable(&quoted)
    )
}

fn json_line(level: Level, message: &str, time: &str) -> String {
    let level = level.name();
    let quoted = printable_json(serde_json::Value::from(message.trim()).to_string());
    format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n")
}

/// Seconds and nanoseconds since 1970.
fn now() -> (u64, u32) {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// The present time as state.json has it: UTC, RFC 3339, with nanoseconds.
pub fn timestamp() -> String {
    let (secs, nanos) = now();
    let seconds = rfc3339(secs);
    format!("{}.{nanos:09}Z", &seconds[..seconds.len() - 1])
}

/// UTC, "2026-11-21T03:26:52Z".
fn rfc3339(secs: u64) -> String {
    let (year, month, day) = civil(secs / 86400);
    let (h, m, s) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let date = day - (153 * month + 2) / 5 + 1;
    let next_year = u64::from(month >= 10);
    (era * 400 + year + next_year, (month + 2) % 12 + 1, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_over_leap_years_and_centuries() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_231_612), "2026-11-21T03:26:52Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn timestamps_have_nanoseconds() {
        let t = timestamp();
        assert_eq!(t.len(), "2026-11-21T03:26:52.123456789Z".len(), "{t}");
        assert_eq!((&t[19..20], &t[29..]), (".", "Z"));
    }

    #[test]
    fn lines_are_those_of_runc() {
        let time = "2026-11-21T03:26:52Z";
        assert_eq!(
            text_line(Level::Warning, "mount \"/a\\b\": no\u{1b}[m\n", time),
            "time=\"2026-11-21T03:26:52Z\" level=warning msg=\"mount \\\"/a\\\\b\\\": no\\u{1b}[m\"\n"
        );
        assert_eq!(
            json_line(Level::Error, "a \"b\"\nc\u{1b}\u{9b}", time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\\u001b\\u009b\",\"time\":\"2026-11-21T03:26:52Z\"}\n"
        );
    }

    #[test]
    fn colour_is_for_terminals_only() {
        assert_eq!(prefix_for(false, false, true), "");
        assert_eq!(prefix_for(false, false, false), "error: ");
        assert_eq!(prefix_for(true, true, true), "error: ");
        assert!(prefix_for(true, false, false).contains('\x1b'));
    }
}
