//! The container's cgroup as a unit of systemd: its name, its place, and its properties, `org.systemd.property.*` of the annotations
//! among them.
//!
//! systemd writes the files of its units again whenever it likes (at `daemon-reload`, for one), so every limit that it has a property
//! for is given as one; all are written to the files too, as systemd would write them.

use super::Violations;
use super::resources::Write;
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};

/// A value of D-Bus, as properties have them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Str(String),
    /// The elements' signature, which an empty array has too.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// Its type as D-Bus writes it: "t", "as", "a(st)".
    pub fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::Byte(_) => "y".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                format!("({inner})")
            }
            Value::Variant(_) => "v".into(),
        }
    }
}

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// A limit that is written to a file as well: a systemd that does not know the property yet may go without it.
    pub optional: bool,
}

/// A transient scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unit {
    /// "docker-ID.scope"
    pub name: String,
    /// "system.slice"
    pub slice: String,
    /// Of the user's systemd rather than the system's.
    pub user: bool,
    /// Of its own and from annotations and limits; without PIDs, which nobody knows yet.
    pub properties: Vec<Property>,
    /// The cgroup below the scope's own that the container's process starts in (annotation `run.oci.systemd.subgroup`).
    pub subgroup: Option<String>,
}

/// crun's annotation for a cgroup below the scope.
const SUBGROUP: &str = "run.oci.systemd.subgroup";
/// What follows is the name of a property.
const PROPERTY: &str = "org.systemd.property.";

/// The unit that a cgroupsPath asks for, and its cgroup's path below the manager's.
pub fn unit(
    given: Option<&Path>,
    id: &str,
    user: bool,
    spec: &Spec,
    writes: &[Write],
    v: &mut Violations,
) -> (Unit, PathBuf) {
    const PATH: &str = "linux.cgroupsPath";
    let default = if user { "user.slice" } else { "system.slice" };
    let text = given.map(|p| p.to_string_lossy()).unwrap_or_default();
    let (slice, prefix, name) = match text.split(':').collect::<Vec<_>>()[..] {
        [""] => (default, "husk", id),
        [slice, prefix, name] => (if slice.is_empty() { default } else { slice }, prefix, name),
        _ => {
            v.add(
                PATH,
                format!(
                    "is '{text}'; expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups"
                ),
            );
            return Default::default();
        }
    };
    let stem = if prefix.is_empty() {
        name.to_string()
    } else {
        format!("{prefix}-{name}")
    };
    let unit_name = format!("{stem}.scope");
    let fine = |c: char| c.is_ascii_alphanumeric() || ":_.\\-@".contains(c);
    if name.is_empty() || !stem.chars().all(fine) || unit_name.len() > 255 {
        v.add(
            PATH,
            format!(
                "is '{text}', of which '{unit_name}' is no name of a unit; use letters, digits and : _ . \\ - @"
            ),
        );
    } else if name.ends_with(".slice") {
        v.add(
            PATH,
            format!(
                "is '{text}', which names a slice; a container is a scope, name the slice before the first colon"
            ),
        );
    }
    let mut path = PathBuf::new();
    match expand_slice(slice) {
        Some(above) => path.push(above),
        None => v.add(
            PATH,
            format!("invalid slice name: {slice}; give one such as machine-containers.slice"),
        ),
    }
    path.push(&unit_name);

    let mut properties = Vec::new();
    let mut own = |name: &str, value| set(&mut properties, name, value, false);
    own("Description", Value::Str(format!("husk container {id}")));
    own("Slice", Value::Str(slice.into()));
    for name in [
        "Delegate",
        "CPUAccounting",
        "IOAccounting",
        "MemoryAccounting",
        "TasksAccounting",
    ] {
        own(name, Value::Bool(true));
    }
    own("DefaultDependencies", Value::Bool(false));
    for p in limits(writes).into_iter().chain(oom_policy(writes)) {
        set(&mut properties, &p.name, p.value, p.optional);
    }
    annotations(spec, &mut properties, v);
    let subgroup = super::annotations::get(spec, SUBGROUP).filter(|s| !s.is_empty());
    if let Some(s) = subgroup.filter(|s| s.contains('/') || *s == "." || *s == "..") {
        v.add(
            super::annotations::path(SUBGROUP),
            format!("is '{s}'; give the name of one cgroup"),
        );
    }
    let unit = Unit {
        name: unit_name,
        slice: slice.into(),
        user,
        properties,
        subgroup: subgroup.cloned(),
    };
    (unit, path)
}

/// A later one replaces an earlier one.
fn set(properties: &mut Vec<Property>, name: &str, value: Value, optional: bool) {
    properties.retain(|p| p.name != name);
    properties.push(Property {
        name: name.into(),
        value,
        optional,
    });
}

/// "a-b.slice" lies in a.slice (systemd.slice(5)); "-.slice" is the root. None: no name of a slice.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Some(path);
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || ":_.\\-@".contains(c);
    if !stem.chars().all(fine) {
        return None;
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        name += part;
        path.push(format!("{name}.slice"));
        name.push('-');
    }
    Some(path)
}

/// The limits as properties; what systemd has none for is in the files alone.
pub fn limits(writes: &[Write]) -> Vec<Property> {
    let mut out = Vec::new();
    let idle = writes
        .iter()
        .any(|w| w.file == "cpu.idle" && w.value.trim() == "1");
    let weighted = writes.iter().any(|w| w.file == "cpu.weight");
    for w in writes {
        let value = w.value.trim();
        let mut one = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                set(&mut out, name, value, true);
            }
        };
        match w.file.as_str() {
            "memory.max" => one("MemoryMax", number(value)),
            "memory.high" => one("MemoryHigh", number(value)),
            "memory.low" => one("MemoryLow", number(value)),
            "memory.min" => one("MemoryMin", number(value)),
            "memory.swap.max" => one("MemorySwapMax", number(value)),
            "memory.zswap.max" => one("MemoryZSwapMax", number(value)),
            "pids.max" => one("TasksMax", number(value)),
            // a weight of 0 is systemd's word for idle
            "cpu.weight" if !idle => one("CPUWeight", number(value)),
            "cpu.idle" if idle => one("CPUWeight", Some(Value::U64(0))),
            // not set: the kernel gives what is no longer idle the usual one
            "cpu.idle" if !weighted => one("CPUWeight", Some(Value::U64(u64::MAX))),
            "cpu.max" => {
                let mut words = value.split_ascii_whitespace();
                let quota = words.next().unwrap_or_default();
                let period = words.next().map_or(Some(100_000), |p| p.parse().ok());
                if let Some(period) = period.filter(|p| *p != 0) {
                    one("CPUQuotaPeriodUSec", Some(Value::U64(period)));
                    one("CPUQuotaPerSecUSec", quota_per_second(quota, period));
                }
            }
            "cpuset.cpus" => one("AllowedCPUs", mask(value)),
            "cpuset.mems" => one("AllowedMemoryNodes", mask(value)),
            "io.weight" => match value.split_once(' ') {
                None => one("IOWeight", number(value)),
                Some(("default", weight)) => one("IOWeight", number(weight)),
                Some((device, weight)) => {
                    add(&mut out, "IODeviceWeight", device, number(weight));
                }
            },
            "io.max" => {
                let Some((device, limits)) = value.split_once(' ') else {
                    continue;
                };
                for limit in limits.split_ascii_whitespace() {
                    let name = match limit.split_once('=') {
                        Some(("rbps", _)) => "IOReadBandwidthMax",
                        Some(("wbps", _)) => "IOWriteBandwidthMax",
                        Some(("riops", _)) => "IOReadIOPSMax",
                        Some(("wiops", _)) => "IOWriteIOPSMax",
                        _ => continue,
                    };
                    let value = limit.split_once('=').and_then(|(_, n)| number(n));
                    add(&mut out, name, device, value);
                }
            }
            _ => {}
        }
    }
    out
}

/// memory.oom.group, which systemd only takes when it makes the unit.
fn oom_policy(writes: &[Write]) -> Option<Property> {
    let group = writes.iter().rev().find(|w| w.file == "memory.oom.group")?;
    let policy = match group.value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property {
        name: "OOMPolicy".into(),
        value: Value::Str(policy.into()),
        optional: true,
    })
}

/// One more entry of a list by device; systemd wants a path.
fn add(out: &mut Vec<Property>, name: &str, device: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let entry = Value::Struct(vec![Value::Str(format!("/dev/block/{device}")), value]);
    match out.iter_mut().find(|p| p.name == name) {
        Some(Property {
            value: Value::Array(_, entries),
            ..
        }) => entries.push(entry),
        _ => set(out, name, Value::Array("(st)".into(), vec![entry]), true),
    }
}

/// A number or "max", which is systemd's largest.
fn number(text: &str) -> Option<Value> {
    match text {
        "max" => Some(Value::U64(u64::MAX)),
        n => n.parse().ok().map(Value::U64),
    }
}

/// As systemd will write them again: it keeps a quota in whole hundredths of a CPU, so the file gets the next one above at once.
pub fn as_kept(writes: &mut [Write]) {
    for w in writes.iter_mut().filter(|w| w.file == "cpu.max") {
        let mut words = w.value.split_ascii_whitespace();
        let quota = words.next().unwrap_or_default();
        let period = words.next().map_or(Some(100_000), |p| p.parse().ok());
        if let Some(period) = period.filter(|p| *p != 0)
            && let Some(Value::U64(per_second)) = quota_per_second(quota, period)
            && per_second != u64::MAX
        {
            let quota = u128::from(per_second) * u128::from(period) / 1_000_000;
            w.value = format!("{quota} {period}");
        }
    }
}

/// In whole hundredths of a CPU, rounded up: systemd keeps no more between two reloads, and a smaller limit than the one asked for
/// would be wrong.
fn quota_per_second(quota: &str, period: u64) -> Option<Value> {
    if quota == "max" {
        return Some(Value::U64(u64::MAX));
    }
    let quota: u64 = quota.parse().ok()?;
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
    u64::try_from(per_second.div_ceil(10_000) * 10_000)
        .ok()
        .map(Value::U64)
}

/// "0-2,5" as bytes, the lowest first. None: not such a list, which writing the file will tell.
fn mask(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to >= 1 << 16 {
            return None;
        }
        for n in from..=to {
            if bytes.len() <= n / 8 {
                bytes.resize(n / 8 + 1, 0);
            }
            bytes[n / 8] |= 1 << (n % 8);
        }
    }
    let bytes = bytes.into_iter().map(Value::Byte).collect();
    Some(Value::Array("y".into(), bytes))
}

/// `org.systemd.property.NAME`: a value as systemd-run(1) does not have them, but gdbus(1) and runc: `uint64 5`, `'text'`,
/// `@as ['a', 'b']`. A name that ends in Sec is given in seconds, and becomes systemd's USec.
fn annotations(spec: &Spec, properties: &mut Vec<Property>, v: &mut Violations) {
    let mut given: Vec<(&String, &String)> = spec
        .annotations()
        .iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(PROPERTY))
        .collect();
    given.sort();
    for (key, text) in given {
        let at = super::annotations::path(key);
        let name = &key[PROPERTY.len()..];
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric());
        if !letters || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            v.add(at, "is not a name of a property such as TimeoutStopUSec");
            continue;
        }
        // husk's own business: where the process is, and who owns what is below
        if ["PIDs", "Slice", "Delegate", "ControlGroup"].contains(&name) {
            v.add(at, "is husk's to set; remove it");
            continue;
        }
        let parsed = parse(text).and_then(|value| match name.strip_suffix("Sec") {
            Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
                Ok((format!("{stem}USec"), microseconds(&value)?))
            }
            _ => Ok((name.to_string(), value)),
        });
        match parsed {
            Ok((name, value)) => set(properties, &name, value, false),
            Err(why) => v.add(at, format!("is '{text}': {why}")),
        }
    }
}

fn microseconds(value: &Value) -> Result<Value, String> {
    let seconds = match value {
        Value::Byte(n) => f64::from(*n),
        Value::I16(n) => f64::from(*n),
        Value::U16(n) => f64::from(*n),
        Value::I32(n) => f64::from(*n),
        Value::U32(n) => f64::from(*n),
        Value::I64(n) => *n as f64,
        Value::U64(n) => *n as f64,
        Value::Double(n) => *n,
        _ => return Err("is not a number of seconds".into()),
    };
    if !(0.0..1e12).contains(&seconds) {
        return Err("is not a number of seconds".into());
    }
    Ok(Value::U64((seconds * 1e6).round() as u64))
}

/// GVariant's text format, without dictionaries and variants.
fn parse(text: &str) -> Result<Value, String> {
    let mut p = Parser { rest: text.trim() };
    let value = p.value(None)?;
    match p.skip() {
        "" => Ok(value),
        rest => Err(format!("'{rest}' follows the value; remove it")),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn takes(&mut self, text: &str) -> bool {
        match self.skip().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Up to a character that cannot be in a number or word.
    fn word(&mut self) -> &'a str {
        let text = self.skip();
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(text.len());
        self.rest = &text[end..];
        &text[..end]
    }

    /// `want` is a type that was said before, or that the elements before had.
    fn value(&mut self, want: Option<&str>) -> Result<Value, String> {
        let text = self.skip();
        match text.chars().next() {
            None => Err("holds no value".into()),
            Some('@') => {
                self.rest = &text[1..];
                let kind = complete_type(self.rest).ok_or("the type after @ is not known")?;
                self.rest = &self.rest[kind.len()..];
                self.value(Some(kind))
            }
            Some(quote @ ('\'' | '"')) => {
                check(want, |w| ["s", "o", "g"].contains(&w), "a string")?;
                self.rest = &text[1..];
                self.string(quote).map(Value::Str)
            }
            Some('[') => self.array(want),
            Some('(') => self.tuple(want),
            Some('{' | '<') => Err("dictionaries and variants are not known here".into()),
            Some(_) => {
                let word = self.word();
                let kind = match word {
                    "true" | "false" => {
                        check(want, |w| w == "b", "a truth value")?;
                        return Ok(Value::Bool(word == "true"));
                    }
                    "boolean" => "b",
                    "byte" => "y",
                    "int16" => "n",
                    "uint16" => "q",
                    "int32" => "i",
                    "uint32" => "u",
                    "int64" => "x",
                    "uint64" => "t",
                    "double" => "d",
                    "string" => "s",
                    _ => return numeral(word, want),
                };
                self.value(Some(kind))
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, c)) => out.push(c),
                    None => break,
                },
                '\0' => return Err("holds a NUL character".into()),
                c if c == quote => {
                    self.rest = &self.rest[i + 1..];
                    return Ok(out);
                }
                c => out.push(c),
            }
        }
        Err(format!("the closing {quote} is missing"))
    }

    fn array(&mut self, want: Option<&str>) -> Result<Value, String> {
        check(want, |w| w.starts_with('a'), "an array")?;
        let mut of = want.map(|w| w[1..].to_string());
        let mut items = Vec::new();
        self.takes("[");
        while !self.takes("]") {
            if !items.is_empty() && !self.takes(",") {
                return Err("a , or ] is missing".into());
            }
            let item = self.value(of.as_deref())?;
            of.get_or_insert_with(|| item.signature());
            items.push(item);
        }
        match of {
            Some(of) => Ok(Value::Array(of, items)),
            None => Err("an empty array needs a type; write @as []".into()),
        }
    }

    fn tuple(&mut self, want: Option<&str>) -> Result<Value, String> {
        check(want, |w| w.starts_with('('), "a tuple")?;
        let mut kinds = want.map(|w| &w[1..w.len() - 1]);
        let mut fields = Vec::new();
        self.takes("(");
        while !self.takes(")") {
            if !fields.is_empty() && !self.takes(",") {
                return Err("a , or ) is missing".into());
            }
            let kind = match kinds {
                Some(rest) => {
                    let kind =
                        complete_type(rest).ok_or("the tuple has more values than its type")?;
                    kinds = Some(&rest[kind.len()..]);
                    Some(kind)
                }
                None => None,
            };
            fields.push(self.value(kind)?);
        }
        match kinds {
            Some("") | None if !fields.is_empty() => Ok(Value::Struct(fields)),
            _ => Err("the tuple has fewer values than its type".into()),
        }
    }
}

fn check(want: Option<&str>, fits: impl Fn(&str) -> bool, is: &str) -> Result<(), String> {
    match want {
        Some(w) if !fits(w) => Err(format!("{is} is not of type {w}")),
        _ => Ok(()),
    }
}

/// The first whole type of a signature, of those that values here have.
fn complete_type(s: &str) -> Option<&str> {
    let length = match s.as_bytes().first()? {
        b'b' | b'y' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' => 1,
        b'a' => 1 + complete_type(&s[1..])?.len(),
        b'(' => {
            let mut length = 1;
            while s.as_bytes().get(length)? != &b')' {
                length += complete_type(&s[length..])?.len();
            }
            length + 1
        }
        _ => return None,
    };
    Some(&s[..length])
}

/// Without a type a whole number is an int32.
fn numeral(word: &str, want: Option<&str>) -> Result<Value, String> {
    fn whole<T: TryFrom<i128>>(word: &str) -> Option<T> {
        let (sign, digits) = match word.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, word),
        };
        let n = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        T::try_from(sign * n.ok()?).ok()
    }
    let kind = match want {
        Some(kind) => kind,
        None if word.contains('.') => "d",
        None => "i",
    };
    match kind {
        "y" => whole(word).map(Value::Byte),
        "n" => whole(word).map(Value::I16),
        "q" => whole(word).map(Value::U16),
        "i" => whole(word).map(Value::I32),
        "u" => whole(word).map(Value::U32),
        "x" => whole(word).map(Value::I64),
        "t" => whole(word).map(Value::U64),
        "d" => word.parse().ok().map(Value::Double),
        _ => None,
    }
    .ok_or_else(|| match want {
        Some(kind) => format!("'{word}' is no value of type {kind}"),
        None => format!("'{word}' is no value; give one such as true, 'text' or uint64 5"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use Value::*;
    use serde_json::json;

    fn made(
        path: Option<&str>,
        annotations: serde_json::Value,
        v: &mut Violations,
    ) -> (Unit, PathBuf) {
        let spec = spec(json!({"annotations": annotations}));
        unit(path.map(Path::new), "id", false, &spec, &[], v)
    }

    #[test]
    fn names() {
        let cases = [
            (None, "husk-id.scope", "system.slice/husk-id.scope"),
            (
                Some("system.slice:docker:abc"),
                "docker-abc.scope",
                "system.slice/docker-abc.scope",
            ),
            (Some(":cri:x"), "cri-x.scope", "system.slice/cri-x.scope"),
            (
                Some("kubepods-besteffort-pod1.slice:cri-containerd:x"),
                "cri-containerd-x.scope",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-x.scope",
            ),
            (Some("machine.slice::x"), "x.scope", "machine.slice/x.scope"),
            (Some("-.slice:a:b"), "a-b.scope", "a-b.scope"),
        ];
        for (given, name, path) in cases {
            let (unit, at) = good(|v| made(given, json!({}), v));
            assert_eq!((unit.name.as_str(), at.to_str().unwrap()), (name, path));
        }
        let user = good(|v| unit(None, "id", true, &spec(json!({})), &[], v));
        assert_eq!(user.0.slice, "user.slice");
    }

    #[test]
    fn names_refused() {
        let cases = [
            (
                "/docker/abc",
                "linux.cgroupsPath: is '/docker/abc'; expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups",
            ),
            (
                "a--b.slice:p:n",
                "linux.cgroupsPath: invalid slice name: a--b.slice; give one such as machine-containers.slice",
            ),
            (
                "system:p:n",
                "linux.cgroupsPath: invalid slice name: system; give one such as machine-containers.slice",
            ),
            (
                "a/b.slice:p:n",
                "linux.cgroupsPath: invalid slice name: a/b.slice; give one such as machine-containers.slice",
            ),
            (
                "a.slice:p:n/m",
                "linux.cgroupsPath: is 'a.slice:p:n/m', of which 'p-n/m.scope' is no name of a unit; use letters, digits and : _ . \\ - @",
            ),
            (
                "a.slice:p:",
                "linux.cgroupsPath: is 'a.slice:p:', of which 'p-.scope' is no name of a unit; use letters, digits and : _ . \\ - @",
            ),
            (
                "a.slice::a-b.slice",
                "linux.cgroupsPath: is 'a.slice::a-b.slice', which names a slice; a container is a scope, name the slice before the first colon",
            ),
        ];
        for (given, want) in cases {
            assert_eq!(faults(|v| made(Some(given), json!({}), v)), want);
        }
    }

    fn find(unit: &Unit, name: &str) -> Option<Value> {
        let mut found = unit.properties.iter().filter(|p| p.name == name);
        let first = found.next().map(|p| p.value.clone());
        assert!(found.next().is_none(), "{name} twice");
        first
    }

    #[test]
    fn values_of_annotations() {
        let cases = [
            ("true", Bool(true)),
            ("'a\\'b'", Str("a'b".into())),
            ("\"x\"", Str("x".into())),
            ("5", I32(5)),
            ("-0x10", I32(-16)),
            ("uint64 5", U64(5)),
            ("@t 5", U64(5)),
            ("byte 255", Byte(255)),
            ("1.5", Double(1.5)),
            (
                "['a', 'b']",
                Array("s".into(), vec![Str("a".into()), Str("b".into())]),
            ),
            ("@as []", Array("s".into(), vec![])),
            ("[uint32 1, 2]", Array("u".into(), vec![U32(1), U32(2)])),
            (
                "@a(st) [('/dev/sda', 7)]",
                Array(
                    "(st)".into(),
                    vec![Struct(vec![Str("/dev/sda".into()), U64(7)])],
                ),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for (text, want) in [
            ("", "holds no value"),
            (
                "yes",
                "'yes' is no value; give one such as true, 'text' or uint64 5",
            ),
            (
                "3000000000",
                "'3000000000' is no value; give one such as true, 'text' or uint64 5",
            ),
            ("byte 256", "'256' is no value of type y"),
            ("uint64 'x'", "a string is not of type t"),
            ("[]", "an empty array needs a type; write @as []"),
            ("['a'", "a , or ] is missing"),
            ("'a", "the closing ' is missing"),
            ("1 2", "'2' follows the value; remove it"),
            ("{'a': 1}", "dictionaries and variants are not known here"),
            ("@z 1", "the type after @ is not known"),
        ] {
            assert_eq!(parse(text), Err(want.into()), "{text}");
        }
    }

    #[test]
    fn annotations_become_properties() {
        let given = json!({
            "org.systemd.property.TimeoutStopSec": "uint64 123",
            "org.systemd.property.CollectMode": "'inactive'",
            "org.systemd.property.After": "['dbus.service']",
            "other": "x", "run.oci.systemd.subgroup": "sub",
        });
        let (unit, _) = good(|v| made(None, given, v));
        assert_eq!(find(&unit, "TimeoutStopUSec"), Some(U64(123_000_000)));
        assert_eq!(find(&unit, "CollectMode"), Some(Str("inactive".into())));
        assert_eq!(find(&unit, "Delegate"), Some(Bool(true)));
        assert_eq!(unit.subgroup.as_deref(), Some("sub"));
        let bad = json!({
            "org.systemd.property.PIDs": "[uint32 1]",
            "org.systemd.property.CPUWeight": "nine",
            "org.systemd.property.a b": "1",
            "run.oci.systemd.subgroup": "a/b",
        });
        assert_eq!(
            faults(|v| made(None, bad, v)),
            "annotations[\"org.systemd.property.CPUWeight\"]: is 'nine': 'nine' is no value; give one such as true, 'text' or uint64 5\n\
             annotations[\"org.systemd.property.PIDs\"]: is husk's to set; remove it\n\
             annotations[\"org.systemd.property.a b\"]: is not a name of a property such as TimeoutStopUSec\n\
             annotations[\"run.oci.systemd.subgroup\"]: is 'a/b'; give the name of one cgroup"
        );
    }

    #[test]
    fn limits_become_properties() {
        let w = |file: &str, value: &str| Write::new("f", file, value);
        let blocks = |entries: &[(&str, u64)]| {
            let entries = entries
                .iter()
                .map(|(d, n)| Struct(vec![Str(format!("/dev/block/{d}")), U64(*n)]));
            Array("(st)".into(), entries.collect())
        };
        let bytes = |b: &[u8]| Array("y".into(), b.iter().copied().map(Byte).collect());
        type Case<'a> = (&'a [Write], &'a [(&'a str, Value)]);
        let cases: [Case; 11] = [
            (&[w("memory.max", "max")], &[("MemoryMax", U64(u64::MAX))]),
            (
                &[w("memory.low", "5"), w("memory.low", "6")],
                &[("MemoryLow", U64(6))],
            ),
            (&[w("pids.max", "1")], &[("TasksMax", U64(1))]),
            (
                &[w("cpu.weight", "5"), w("cpu.idle", "1")],
                &[("CPUWeight", U64(0))],
            ),
            (
                &[w("cpu.idle", "0"), w("cpu.weight", "5")],
                &[("CPUWeight", U64(5))],
            ),
            (
                &[w("cpu.max", "15500 1000000")],
                &[
                    ("CPUQuotaPeriodUSec", U64(1_000_000)),
                    ("CPUQuotaPerSecUSec", U64(20_000)),
                ],
            ),
            (
                &[w("cpu.max", "max")],
                &[
                    ("CPUQuotaPeriodUSec", U64(100_000)),
                    ("CPUQuotaPerSecUSec", U64(u64::MAX)),
                ],
            ),
            (
                &[w("cpuset.cpus", "0-1, 9")],
                &[("AllowedCPUs", bytes(&[3, 2]))],
            ),
            (
                &[
                    w("io.bfq.weight", "9"),
                    w("io.weight", "8:0 7"),
                    w("io.weight", "6"),
                ],
                &[
                    ("IODeviceWeight", blocks(&[("8:0", 7)])),
                    ("IOWeight", U64(6)),
                ],
            ),
            (
                &[
                    w("io.max", "8:0 rbps=1 wiops=2"),
                    w("io.max", "8:16 rbps=max"),
                ],
                &[
                    (
                        "IOReadBandwidthMax",
                        blocks(&[("8:0", 1), ("8:16", u64::MAX)]),
                    ),
                    ("IOWriteIOPSMax", blocks(&[("8:0", 2)])),
                ],
            ),
            (&[w("hugetlb.2MB.max", "5"), w("cpuset.mems", "x")], &[]),
        ];
        for (writes, want) in cases {
            let got = limits(writes);
            let got: Vec<_> = got
                .iter()
                .map(|p| (p.name.as_str(), p.value.clone()))
                .collect();
            assert_eq!(got, want, "{writes:?}");
        }
        let (unit, _) = good(|v| {
            unit(
                None,
                "id",
                false,
                &spec(json!({})),
                &[w("memory.oom.group", "1")],
                v,
            )
        });
        assert_eq!(find(&unit, "OOMPolicy"), Some(Str("kill".into())));
        for (asked, kept) in [
            ("15500 1000000", "20000 1000000"),
            ("50000 100000", "50000 100000"),
            ("33333 100000", "34000 100000"),
            ("50500", "51000 100000"),
            ("max 100000", "max 100000"),
            ("x 100000", "x 100000"),
        ] {
            let mut writes = [w("cpu.max", asked)];
            as_kept(&mut writes);
            assert_eq!(writes[0].value, kept, "{asked}");
        }
    }
}
