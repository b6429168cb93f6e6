//! Exit codes, and errors as text.

use anyhow::Error;

/// husk's own failures.
pub const FAILURE: i32 = 1;
/// `exec`'s own failures, so that they are not taken for the exit code of the process.
pub const EXEC_FAILURE: i32 = 255;

/// The whole chain on one line, "start 'web': read exec.err: permission denied".
pub fn text(error: &Error) -> String {
    format!("{error:#}")
}

/// Makes text that may hold anything (a config, a file name) safe for a terminal: control characters and those that turn
/// the direction of writing are shown as `\u{1b}`. Line ends and tabs stay.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_dangerous(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for JSON, which has an escape of its own for each of them: it stays the same JSON.
pub fn printable_json(json: String) -> String {
    if !json.chars().any(is_dangerous) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_dangerous(c) {
            out.push_str(&format!("\\u{:04x}", c as u32)); // all of them are in the basic plane
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal would act on this character rather than show it.
pub fn is_dangerous(c: char) -> bool {
    let turns_direction = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    (c.is_control() && c != '\n' && c != '\t') || turns_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_whole_chain() {
        let error = Error::msg("no such file or directory")
            .context("open 'x'")
            .context("start 'web'");
        assert_eq!(
            text(&error),
            "start 'web': open 'x': no such file or directory"
        );
    }

    #[test]
    fn printable_disarms_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r"), "a\\u{1b}[2Jb\\u{d}");
        assert_eq!(
            printable("\u{9b}1m \u{202e}evil"),
            "\\u{9b}1m \\u{202e}evil"
        );
        assert_eq!(printable("é\n\tok"), "é\n\tok");
        let json = serde_json::json!({"a": "é\u{1b}\u{9b}1m\u{202e}\u{7f}"});
        let text = printable_json(json.to_string());
        assert_eq!(text, "{\"a\":\"é\\u001b\\u009b1m\\u202e\\u007f\"}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, json);
    }
}
