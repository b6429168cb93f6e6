//! linux.intelRdt: the share of cache and of memory bandwidth that a class of service (CLOS) has, by resctrl.

use super::Violations;
use crate::host::{Host, Resctrl};
use oci_spec::runtime::{LinuxIntelRdt, Spec};
use std::path::PathBuf;

/// The groups that the container's processes are put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntelRdt {
    /// Where resctrl is mounted.
    pub root: PathBuf,
    /// The directory of the class of service; the root's own is the default one.
    pub class: PathBuf,
    /// husk makes it.
    pub new: bool,
    /// husk makes it for this container alone, and removes it with it.
    pub own: bool,
    /// A monitoring group of the container's own.
    pub monitor: Option<PathBuf>,
    /// Lines for the class's `schemata`, in this order.
    pub schemata: Vec<String>,
}

impl IntelRdt {
    /// What is to be removed with the container, in order.
    pub fn remove(&self) -> Vec<PathBuf> {
        let own = self.own.then(|| self.class.clone());
        self.monitor.iter().cloned().chain(own).collect()
    }
}

/// The directory of the config's class of service below resctrl's root; empty for the default one. None: it asks for none.
pub fn class(spec: &Spec, id: &str) -> Option<String> {
    let rdt = spec.linux().as_ref()?.intel_rdt().as_ref()?;
    Some(match rdt.clos_id().as_deref().unwrap_or_default() {
        "" => id.into(),
        "/" => String::new(),
        given => given.into(),
    })
}

/// Decides by what [`Host::resctrl`] has of the class. Some words are runc's.
pub fn plan(spec: &Spec, host: &Host, id: &str, v: &mut Violations) -> Option<IntelRdt> {
    let rdt = spec.linux().as_ref()?.intel_rdt().as_ref()?;
    let class = class(spec, id)?;
    check_class(rdt, &class, v);
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (l3, mb) = (text(rdt.l3_cache_schema()), text(rdt.mem_bw_schema()));
    check_lines(rdt, v);
    warn_of_old_fields(rdt, v);
    let Some(resctrl) = &host.resctrl else {
        v.add(
            "linux.intelRdt",
            "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted on this host; remove it",
        );
        return None;
    };
    check_resources(&l3, &mb, resctrl, v);
    let lines = rdt.schemata().iter().flatten().cloned();
    let named = text(rdt.clos_id()).is_some();
    let schemata: Vec<String> = [l3, mb].into_iter().flatten().chain(lines).collect();
    match &resctrl.schemata {
        Some(found) if named => check_match(rdt, found, v),
        None if named && schemata.is_empty() => v.add(
            "linux.intelRdt.closID",
            format!(
                "'{class}' is no class of service of this host, which it must be without l3CacheSchema, memBwSchema and schemata"
            ),
        ),
        _ => {}
    }
    let new = resctrl.schemata.is_none();
    let directory = resctrl.root.join(&class);
    let monitor = rdt.enable_monitoring().unwrap_or(false);
    Some(IntelRdt {
        root: resctrl.root.clone(),
        monitor: monitor.then(|| directory.join("mon_groups").join(id)),
        class: directory,
        new,
        own: new && !named,
        schemata,
    })
}

/// A name that leads out of resctrl's root, or to something of the kernel's own there, is none.
fn check_class(rdt: &LinuxIntelRdt, class: &str, v: &mut Violations) {
    const KERNELS: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];
    if !class.contains(['/', '\n', '\0']) && !KERNELS.contains(&class) {
        return;
    }
    match rdt.clos_id().as_deref().unwrap_or_default() {
        "" => v.add(
            "linux.intelRdt",
            format!("a class of service cannot be called '{class}' as the container; set closID"),
        ),
        given => v.add(
            "linux.intelRdt.closID",
            format!(
                "invalid intelRdt.ClosID \"{given}\"; it is a name, or \"/\" for the default class"
            ),
        ),
    }
}

fn check_lines(rdt: &LinuxIntelRdt, v: &mut Violations) {
    let l3 = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    // the specification wants no more than a SHOULD of this one
    if !l3.is_empty() && (!l3.starts_with("L3:") || l3.contains('\n')) {
        v.warn(
            "linux.intelRdt.l3CacheSchema",
            "should be one line that starts with \"L3:\"; schemata takes all others",
        );
    }
    let mb = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    if !mb.is_empty() && (!mb.starts_with("MB:") || mb.contains('\n')) {
        v.add(
            "linux.intelRdt.memBwSchema",
            "must be one line that starts with \"MB:\"; schemata takes all others",
        );
    }
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            v.add(
                format!("linux.intelRdt.schemata[{i}]"),
                "holds a newline; give each line an element of its own",
            );
        }
    }
}

#[allow(deprecated)]
fn warn_of_old_fields(rdt: &LinuxIntelRdt, v: &mut Violations) {
    for (field, given) in [
        ("enableCMT", rdt.enable_cmt()),
        ("enableMBM", rdt.enable_mbm()),
    ] {
        if given.unwrap_or(false) {
            v.warn(
                &format!("linux.intelRdt.{field}"),
                "has no effect, and is no more in the specification; use enableMonitoring",
            );
        }
    }
}

fn check_resources(
    l3: &Option<String>,
    mb: &Option<String>,
    resctrl: &Resctrl,
    v: &mut Violations,
) {
    for (field, given, there, what) in [
        ("l3CacheSchema", l3, resctrl.l3, "CAT"),
        ("memBwSchema", mb, resctrl.mb, "MBA"),
    ] {
        if given.is_some() && !there {
            v.add(
                format!("linux.intelRdt.{field}"),
                format!("intelRdt.{field} is specified in config, but Intel RDT/{what} is not enabled; remove it"),
            );
        }
    }
}

/// A class that is there is others' too: what the config says of it must be what it is.
fn check_match(rdt: &LinuxIntelRdt, found: &str, v: &mut Violations) {
    for (field, given) in [
        ("l3CacheSchema", rdt.l3_cache_schema()),
        ("memBwSchema", rdt.mem_bw_schema()),
    ] {
        let lines = given.iter().flat_map(|g| g.lines());
        for line in lines.filter(|line| !line.is_empty()) {
            if !matches(line, found) {
                v.add(
                    format!("linux.intelRdt.{field}"),
                    format!(
                        "'{line}' is not what the class of service has; its schemata is {found:?}"
                    ),
                );
            }
        }
    }
}

/// Whether a file `schemata` has all that a line says. The kernel pads numbers, with blanks and with zeroes.
fn matches(line: &str, found: &str) -> bool {
    let of = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let plain = |number: &str| number.trim().trim_start_matches('0').to_ascii_lowercase();
        let (resource, domains) = line.split_once(':')?;
        let domains = domains.split(';').filter(|d| !d.trim().is_empty());
        let domains = domains.map(|d| d.split_once('=').map(|(id, n)| (plain(id), plain(n))));
        Some((resource.trim().into(), domains.collect::<Option<_>>()?))
    };
    let Some((resource, wanted)) = of(line) else {
        return false;
    };
    let there = found.lines().filter_map(of).find(|(r, _)| *r == resource);
    there.is_some_and(|(_, domains)| wanted.iter().all(|d| domains.contains(d)))
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    /// resctrl with the class in question, if it has a `schemata`.
    fn host(schemata: Option<&str>) -> Host {
        Host {
            resctrl: Some(Resctrl {
                root: "/sys/fs/resctrl".into(),
                l3: true,
                mb: true,
                schemata: schemata.map(String::from),
            }),
            ..root()
        }
    }

    fn run(fields: Value, host: &Host, v: &mut Violations) -> Option<IntelRdt> {
        plan(&linux(json!({ "intelRdt": fields })), host, "web", v)
    }

    const THERE: Option<&str> = Some("    L3:0=07f0;1=001f\n    MB:0= 20;1= 70\n");

    #[test]
    fn the_containers_own_class_goes_with_it() {
        assert_eq!(
            good(|v| plan(&linux(json!({})), &host(None), "web", v)),
            None
        );
        let rdt = good(|v| run(json!({}), &host(None), v)).unwrap();
        let expected = IntelRdt {
            root: "/sys/fs/resctrl".into(),
            class: "/sys/fs/resctrl/web".into(),
            new: true,
            own: true,
            monitor: None,
            schemata: vec![],
        };
        assert_eq!(rdt, expected);
        assert_eq!(rdt.remove(), [PathBuf::from("/sys/fs/resctrl/web")]);
        // one that was there before stays
        let rdt = good(|v| run(json!({}), &host(THERE), v)).unwrap();
        assert_eq!((rdt.new, rdt.own, rdt.remove()), (false, false, vec![]));
    }

    #[test]
    fn a_class_given_by_name_stays() {
        let fields = json!({"closID": "gold", "enableMonitoring": true});
        let rdt = good(|v| run(fields, &host(THERE), v)).unwrap();
        assert_eq!(rdt.class, PathBuf::from("/sys/fs/resctrl/gold"));
        let group = PathBuf::from("/sys/fs/resctrl/gold/mon_groups/web");
        assert_eq!(rdt.remove(), [group]);
        let fields = json!({"closID": "gold", "schemata": ["L2:0=f"]});
        let rdt = good(|v| run(fields, &host(None), v)).unwrap();
        assert_eq!((rdt.new, rdt.own), (true, false));
        let fields = json!({"closID": "/", "enableMonitoring": true});
        let rdt = good(|v| run(fields, &host(THERE), v)).unwrap();
        assert_eq!(
            rdt.monitor.unwrap(),
            PathBuf::from("/sys/fs/resctrl/mon_groups/web")
        );
        assert_eq!(
            faults(|v| run(json!({"closID": "gold"}), &host(None), v)),
            "linux.intelRdt.closID: 'gold' is no class of service of this host, which it must be without l3CacheSchema, \
             memBwSchema and schemata"
        );
    }

    #[test]
    fn lines_are_written_in_the_specs_order() {
        let fields = json!({"schemata": ["L2:0=f", "L3:0=1"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"});
        let rdt = good(|v| run(fields, &host(None), v)).unwrap();
        assert_eq!(rdt.schemata, ["L3:0=f", "MB:0=20", "L2:0=f", "L3:0=1"]);
    }

    #[test]
    fn a_class_that_is_there_must_match() {
        let fields = |l3: &str| json!({"closID": "gold", "l3CacheSchema": l3, "memBwSchema": "MB:1=70;0=20"});
        good(|v| run(fields("L3:0=7F0;1=1f"), &host(THERE), v));
        good(|v| run(fields("L3:1=1f"), &host(THERE), v));
        for wrong in ["L3:0=7f1", "L3:2=1f"] {
            let fault = faults(|v| run(fields(wrong), &host(THERE), v));
            let begin = format!("linux.intelRdt.l3CacheSchema: '{wrong}' is not what the class");
            assert!(fault.starts_with(&begin), "{fault}");
        }
        // its own is free to change
        good(|v| run(json!({"l3CacheSchema": "L3:0=1"}), &host(THERE), v));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (fields, fault) in [
            (
                json!({"closID": "a/b"}),
                "closID: invalid intelRdt.ClosID \"a/b\"; it is a name, or \"/\" for the default class",
            ),
            (
                json!({"closID": ".."}),
                "closID: invalid intelRdt.ClosID \"..\"; it is a name, or \"/\" for the default class",
            ),
            (
                json!({"closID": "info"}),
                "closID: invalid intelRdt.ClosID \"info\"; it is a name, or \"/\" for the default class",
            ),
            (
                json!({"memBwSchema": "L3:0=f"}),
                "memBwSchema: must be one line that starts with \"MB:\"; schemata takes all others",
            ),
            (
                json!({"memBwSchema": "MB:0=1\nL3:0=1"}),
                "memBwSchema: must be one line that starts with \"MB:\"; schemata takes all others",
            ),
            (
                json!({"schemata": ["L3:0=f", "a\nb"]}),
                "schemata[1]: holds a newline; give each line an element of its own",
            ),
        ] {
            let fault = format!("linux.intelRdt.{fault}");
            assert_eq!(faults(|v| run(fields.clone(), &host(THERE), v)), fault);
        }
        let mut bare = host(None);
        bare.resctrl.as_mut().unwrap().mb = false;
        bare.resctrl.as_mut().unwrap().l3 = false;
        assert_eq!(
            faults(|v| run(
                json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=1"}),
                &bare,
                v
            )),
            "linux.intelRdt.l3CacheSchema: intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled; remove it\n\
             linux.intelRdt.memBwSchema: intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled; remove it"
        );
        assert_eq!(
            faults(|v| run(json!({}), &root(), v)),
            "linux.intelRdt: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted on this host; \
             remove it"
        );
        let (_, warnings) = warned(|v| run(json!({"enableCmt": true}), &host(None), v));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
}
