//! Parse, dispatch, print one error, exit: nothing is decided here.

#![no_main]

use husk::cli::{self, Stop, Verb};
use husk::launch::LastWords;
use husk::sys::start::Arguments;
use husk::{cmd, error, log, seal};
use std::ffi::OsString;

#[global_allocator]
static ALLOCATOR: husk::sys::alloc::Allocator = husk::sys::alloc::Allocator::new();

husk::program!(run);

fn run(args: Arguments) -> i32 {
    // before anything else is done twice, so before anybody knows which of the words is the command
    let has = |word| args.iter().any(|a| a == word);
    if (has("create") || has("run") || has("exec"))
        && let Err(e) = seal::ensure(args)
    {
        log::error(&error::text(&e));
        return if has("exec") {
            error::EXEC_FAILURE
        } else {
            error::FAILURE
        };
    }
    command(args)
}

/// On its own: the few pages that the way to a sealed place needs are mapped and dropped for nothing.
#[inline(never)]
fn command(args: Arguments) -> i32 {
    let parsed = match cli::parse_global(args.iter().map(OsString::from)) {
        Ok(parsed) => parsed,
        Err(stop) => return end(stop, error::FAILURE),
    };
    let failure = if parsed.is_exec() {
        error::EXEC_FAILURE
    } else {
        error::FAILURE
    };
    let global = parsed.global.clone();
    if let Err(e) = log::init(global.log.as_deref(), global.log_format, global.log_level) {
        log::error(&error::text(&e));
        return failure;
    }
    let verb = match parsed.verb() {
        Ok(verb) => verb,
        Err(stop) => return end(stop, failure),
    };
    let result = match verb {
        Verb::Create(args) => cmd::create::run(&global, args),
        Verb::Start(args) => cmd::start::run(&global, args),
        Verb::Run(args) => cmd::run::run(&global, args),
        Verb::Exec(args) => cmd::exec::run(&global, args),
        Verb::State(args) => cmd::state::run(&global, args),
        Verb::List(args) => cmd::list::run(&global, args),
        Verb::Ps(args) => cmd::ps::run(&global, args),
        Verb::Kill(args) => cmd::kill::run(&global, args),
        Verb::Pause(args) => cmd::pause::run(&global, args),
        Verb::Resume(args) => cmd::resume::run(&global, args),
        Verb::Delete(args) => cmd::delete::run(&global, args),
        Verb::Update(args) => cmd::update::run(&global, *args),
        Verb::Events(args) => cmd::events::run(&global, args),
        Verb::Spec(args) => cmd::spec::run(args),
        Verb::Features(_) => cmd::features::run(),
        Verb::Version(name) => cmd::features::version(&name),
    };
    result.unwrap_or_else(|e| {
        if e.is::<LastWords>() {
            // as with runc, whose callers know "exec /bin/x: no such file or directory"
            log::error_as_is(&error::text(&e));
        } else {
            log::error(&error::text(&e));
        }
        failure
    })
}

fn end(stop: Stop, failure: i32) -> i32 {
    match stop {
        Stop::Help(text) => text.print().map_or(failure, |()| 0),
        Stop::Usage(text) => {
            log::error(&text);
            failure
        }
    }
}
