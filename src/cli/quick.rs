//! The lines that engines write, read without clap: building and searching its commands would be half of what `state` or `kill` cost,
//! most of it for mapping the pages of its code.
//!
//! Only what is certain is taken: long options by their whole names, with values that are not empty and do not begin with a dash.
//! Everything else, from a short option to a fault, is None and left to clap, which reads it all again. A line that both
//! take means the same to both (see the tests); an option that is missing here is only slower.

use super::*;

/// The words of a line, from left to right.
struct Words<'a> {
    rest: &'a [OsString],
    /// What followed the last option after a "=".
    inline: Option<&'a str>,
}

enum Word<'a> {
    Option(&'a str),
    Plain(&'a str),
}

impl<'a> Words<'a> {
    fn new(rest: &'a [OsString]) -> Words<'a> {
        Words { rest, inline: None }
    }

    /// The next word; the outer None is for what clap must read, the inner one is the end.
    fn next(&mut self) -> Option<Option<Word<'a>>> {
        if self.inline.is_some() {
            return None; // a value for an option that takes none
        }
        let Some((word, rest)) = self.rest.split_first() else {
            return Some(None);
        };
        let word = word.to_str()?;
        self.rest = rest;
        let Some(option) = word.strip_prefix("--") else {
            return plain(word).map(|word| Some(Word::Plain(word)));
        };
        let name = match option.split_once('=') {
            Some((name, value)) => {
                self.inline = Some(value);
                name
            }
            None => option,
        };
        Some(Some(Word::Option(name)))
    }

    fn value(&mut self) -> Option<&'a str> {
        if let Some(value) = self.inline.take() {
            return plain(value);
        }
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        plain(word.to_str()?)
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.value().map(PathBuf::from)
    }

    fn number(&mut self) -> Option<u32> {
        self.value()?.parse().ok()
    }

    /// The words of a command without options of its own, at most two.
    fn one_or_two(
        &mut self,
        mut flag: impl FnMut(&str) -> Option<()>,
    ) -> Option<(String, Option<String>)> {
        let (mut first, mut second) = (None, None);
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name) => flag(name)?,
                Word::Plain(word) if first.is_none() => first = Some(word.to_owned()),
                Word::Plain(word) if second.is_none() => second = Some(word.to_owned()),
                Word::Plain(_) => return None,
            }
        }
        Some((first?, second))
    }

    fn one(&mut self, flag: impl FnMut(&str) -> Option<()>) -> Option<String> {
        match self.one_or_two(flag)? {
            (id, None) => Some(id),
            _ => None,
        }
    }
}

fn plain(word: &str) -> Option<&str> {
    (!word.is_empty() && !word.starts_with('-')).then_some(word)
}

/// The global options, and the words from the command on.
pub fn global(words: &[OsString]) -> Option<(Global, &[OsString])> {
    let mut global = Global {
        root: None,
        log: None,
        log_format: Format::default(),
        log_level: Level::Warning,
        debug: false,
        systemd_cgroup: false,
        cgroup_manager: CgroupManager::default(),
        rootless: Rootless::default(),
    };
    let mut line = Words::new(words);
    loop {
        let command = line.rest;
        match line.next()?? {
            Word::Plain(_) => return Some((global, command)),
            Word::Option(name) => match name {
                "root" => global.root = Some(line.path()?),
                "log" => global.log = Some(line.path()?),
                "log-format" => {
                    global.log_format = match line.value()? {
                        "json" => Format::Json,
                        "text" => Format::Text,
                        _ => return None,
                    }
                }
                "debug" => global.debug = true,
                "systemd-cgroup" => global.systemd_cgroup = true,
                _ => return None,
            },
        }
    }
}

/// A command by its own words.
pub fn verb(name: &str, words: &[OsString]) -> Option<Verb> {
    let mut line = Words::new(words);
    let none = |_: &str| None;
    Some(match name {
        "create" => {
            let (creation, id) = creation(&mut line, none)?;
            Verb::Create(Create { creation, id })
        }
        "run" => {
            let (mut detach, mut keep, mut no_subreaper) = (false, false, false);
            let (creation, id) = creation(&mut line, |name| {
                match name {
                    "detach" => detach = true,
                    "keep" => keep = true,
                    "no-subreaper" => no_subreaper = true,
                    _ => return None,
                }
                Some(())
            })?;
            Verb::Run(Run {
                creation,
                detach,
                keep,
                no_subreaper,
                id,
            })
        }
        "exec" => Verb::Exec(exec(&mut line)?),
        "start" => Verb::Start(Start {
            id: line.one(none)?,
        }),
        "state" => Verb::State(State {
            id: line.one(none)?,
        }),
        "kill" => {
            let mut all = false;
            let (id, signal) = line.one_or_two(|name| {
                all |= name == "all";
                (name == "all").then_some(())
            })?;
            let signal = signal.unwrap_or_else(|| "TERM".into());
            Verb::Kill(Kill { all, id, signal })
        }
        "delete" => {
            let mut force = false;
            let id = line.one(|name| {
                force |= name == "force";
                (name == "force").then_some(())
            })?;
            Verb::Delete(Delete { force, id })
        }
        _ => return None,
    })
}

fn creation(
    line: &mut Words,
    mut flag: impl FnMut(&str) -> Option<()>,
) -> Option<(Creation, String)> {
    let mut c = Creation {
        bundle: ".".into(),
        config: None,
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
    };
    let mut id = None;
    while let Some(word) = line.next()? {
        match word {
            Word::Plain(word) if id.is_none() => id = Some(word.to_owned()),
            Word::Plain(_) => return None,
            Word::Option(name) => match name {
                "bundle" => c.bundle = line.path()?,
                "config" => c.config = Some(line.path()?),
                "console-socket" => c.console_socket = Some(line.path()?),
                "pidfd-socket" => c.pidfd_socket = Some(line.path()?),
                "pid-file" => c.pid_file = Some(line.path()?),
                "no-pivot" => c.no_pivot = true,
                "no-new-keyring" => c.no_new_keyring = true,
                "preserve-fds" => c.preserve_fds = line.number()?,
                _ => flag(name)?,
            },
        }
    }
    Some((c, id?))
}

fn exec(line: &mut Words) -> Option<Exec> {
    let mut e = Exec {
        process: None,
        tty: false,
        detach: false,
        cwd: None,
        env: Vec::new(),
        user: None,
        additional_gids: Vec::new(),
        cap: Vec::new(),
        process_label: None,
        apparmor: None,
        no_new_privs: false,
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        preserve_fds: 0,
        cgroup: Vec::new(),
        ignore_paused: false,
        line: Vec::new(),
    };
    while let Some(word) = line.next()? {
        match word {
            Word::Plain(id) => {
                e.line.push(id.to_owned());
                for word in line.rest {
                    e.line.push(word.to_str()?.to_owned());
                }
                return Some(e);
            }
            Word::Option(name) => match name {
                "process" => e.process = Some(line.path()?),
                "tty" => e.tty = true,
                "detach" => e.detach = true,
                "cwd" => e.cwd = Some(line.value()?.to_owned()),
                "env" => e.env.push(line.value()?.to_owned()),
                "user" => e.user = Some(User::parse(line.value()?).ok()?),
                "cap" => e.cap.push(line.value()?.to_owned()),
                "console-socket" => e.console_socket = Some(line.path()?),
                "pidfd-socket" => e.pidfd_socket = Some(line.path()?),
                "pid-file" => e.pid_file = Some(line.path()?),
                "preserve-fds" => e.preserve_fds = line.number()?,
                _ => return None,
            },
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn text(read: Option<impl std::fmt::Debug>) -> Option<String> {
        read.map(|r| format!("{r:?}"))
    }

    fn clap_verb(name: &str, words: Vec<OsString>) -> Option<Verb> {
        super::super::read_verb(name.into(), name, words.into_iter()).ok()
    }

    #[test]
    fn what_is_taken_means_the_same_to_clap() {
        for line in [
            "create web",
            "create --bundle /b web",
            "create web --bundle=/b --pid-file /p --console-socket /c --pidfd-socket=/d --config c.json",
            "create --no-pivot --no-new-keyring --preserve-fds 3 --bundle a --bundle b web",
            "create --bundle a=b --preserve-fds=4 --no-pivot --no-pivot web",
            "run web",
            "run --detach --keep --no-subreaper --bundle /b --pid-file /p web",
            "exec --process /p --console-socket /c --pidfd-socket /d --detach --pid-file /f web",
            "exec --tty --cwd / --env A=b --env=C=d --user 5:6 --cap CAP_KILL --cap CAP_CHOWN --preserve-fds 1 web sh -c --x=y",
            "exec --user 5 web -x -- --tty",
            "exec web ",
            "start web",
            "state web",
            "kill web",
            "kill web KILL",
            "kill --all web 9",
            "kill web 9 --all",
            "delete web",
            "delete --force web",
            "delete web --force --force",
        ] {
            let words = words(line);
            let (name, rest) = (words[0].to_str().unwrap(), &words[1..]);
            let quick = text(verb(name, rest));
            assert!(quick.is_some(), "{line}: not taken");
            assert_eq!(quick, text(clap_verb(name, rest.to_vec())), "{line}");
        }
        for line in [
            "state",
            "--root /r state x",
            "--root=/r --log /l --log-format json --debug --systemd-cgroup create --bundle b x",
            "--root /a --root /b --log-format=text --log a=b exec x -- --root",
        ] {
            let words = words(line);
            let quick = global(&words).map(|(global, rest)| (global, rest.to_vec()));
            assert!(quick.is_some(), "{line}: not taken");
            let parsed: super::super::Line =
                super::super::read("husk".into(), words.iter().cloned()).unwrap();
            let Some(Rest::Verb(rest)) = parsed.rest else {
                panic!("{line}")
            };
            assert_eq!(text(quick), text(Some((parsed.global, rest))), "{line}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_clap() {
        for line in [
            "create",
            "create a b",
            "create --bundle",
            "create --bundle= web",
            "create --bundle -x web",
            "create --bundl /b web",
            "create -b /b web",
            "create --no-pivot=true web",
            "create --preserve-fds -1 web",
            "create --preserve-fds x web",
            "create --help",
            "create -- web",
            "create ",
            "run --detach=1 web",
            "exec",
            "exec --tty",
            "exec -t web",
            "exec --user x web",
            "exec --additional-gids 1 web",
            "start",
            "start a b",
            "start --force web",
            "state --help",
            "kill a b c",
            "kill --al web",
            "kill web -9",
            "delete -f web",
            "delete --force=yes web",
            "list",
            "help",
        ] {
            let words = words(line);
            let (name, rest) = (words[0].to_str().unwrap(), &words[1..]);
            assert_eq!(text(verb(name, rest)), None, "{line}");
        }
        for line in [
            "",
            "--help",
            "--version",
            "-v",
            "--root",
            "--root= state x",
            "--root --log state x",
            "--log-format xml state x",
            "--debug=true state x",
            "--rootless true state x",
            "-- state x",
        ] {
            assert_eq!(text(global(&words(line))), None, "{line}");
        }
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        assert_eq!(text(verb("state", &[odd])), None);
    }
}
