//! linux.memoryPolicy: the NUMA nodes that memory comes from, for the container's process and for each that `exec` adds.

use super::{Violations, lists};
use oci_spec::runtime::{
    LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode, Spec,
};

/// The arguments of set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// The mode with its flags.
    pub mode: i32,
    /// A mask, whose first word has the first 64 nodes; empty for none.
    pub nodes: Vec<u64>,
}

/// Each mode with its number in linux/mempolicy.h.
pub const MODES: [(Mode, i32); 7] = [
    (Mode::MpolDefault, 0),
    (Mode::MpolPreferred, 1),
    (Mode::MpolBind, 2),
    (Mode::MpolInterleave, 3),
    (Mode::MpolLocal, 4),
    (Mode::MpolPreferredMany, 5),
    (Mode::MpolWeightedInterleave, 6),
];

/// Each flag with its bit in linux/mempolicy.h.
pub const FLAGS: [(Flag, i32); 3] = [
    (Flag::MpolFNumaBalancing, 1 << 13),
    (Flag::MpolFRelativeNodes, 1 << 14),
    (Flag::MpolFStaticNodes, 1 << 15),
];

/// The policy. What a fault says begins as with runc.
pub fn plan(spec: &Spec, v: &mut Violations) -> Option<MemoryPolicy> {
    let policy = spec.linux().as_ref()?.memory_policy().as_ref()?;
    let at = |field: &str| format!("linux.memoryPolicy.{field}");
    let list = policy.nodes().as_deref().unwrap_or_default();
    let nodes = lists::mask(list, "memory policy node", &at("nodes"), v).unwrap_or_default();
    check_count(policy, &nodes, &at("nodes"), v);
    let given: Vec<Flag> = policy.flags().iter().flatten().copied().collect();
    if given.contains(&Flag::MpolFStaticNodes) && given.contains(&Flag::MpolFRelativeNodes) {
        v.add(
            at("flags"),
            "invalid memory policy flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other; keep one",
        );
    }
    let mode = MODES.iter().find(|(mode, _)| *mode == policy.mode());
    let flags = FLAGS.iter().filter(|(flag, _)| given.contains(flag));
    Some(MemoryPolicy {
        mode: flags.fold(mode?.1, |mode, (_, bit)| mode | bit),
        nodes,
    })
}

/// The kernel answers each of these with a bare EINVAL.
fn check_count(policy: &LinuxMemoryPolicy, nodes: &[u64], at: &str, v: &mut Violations) {
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    let list = policy.nodes().as_deref().unwrap_or_default();
    let none_given = list.trim_matches([',', ' ']).is_empty(); // rather than some that are faulty
    let mode = policy.mode();
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if count > 0 => {
            v.add(at, format!("{mode}: mode requires 0 nodes but got {count}"));
        }
        Mode::MpolBind
        | Mode::MpolInterleave
        | Mode::MpolPreferredMany
        | Mode::MpolWeightedInterleave
            if count == 0 && none_given =>
        {
            v.add(
                at,
                format!("{mode}: mode requires at least one node but got 0"),
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn policy(fields: Value, v: &mut Violations) -> Option<MemoryPolicy> {
        plan(&linux(json!({ "memoryPolicy": fields })), v)
    }

    #[test]
    fn modes_flags_and_nodes_are_numbers() {
        assert_eq!(good(|v| plan(&linux(json!({})), v)), None);
        let one = |mode: &str, nodes: &str, flags: &[&str]| {
            let fields = json!({"mode": mode, "nodes": nodes, "flags": flags});
            let p = good(|v| policy(fields, v)).unwrap();
            (p.mode, p.nodes)
        };
        assert_eq!(one("MPOL_DEFAULT", "", &[]), (0, vec![]));
        assert_eq!(one("MPOL_PREFERRED", "", &[]), (1, vec![]));
        assert_eq!(one("MPOL_LOCAL", "", &[]), (4, vec![]));
        assert_eq!(
            one("MPOL_BIND", "0-1,65", &["MPOL_F_STATIC_NODES"]),
            (2 | 1 << 15, vec![3, 2])
        );
        assert_eq!(
            one("MPOL_INTERLEAVE", "3", &["MPOL_F_RELATIVE_NODES"]),
            (3 | 1 << 14, vec![8])
        );
        assert_eq!(
            one("MPOL_PREFERRED_MANY", "0", &["MPOL_F_NUMA_BALANCING"]),
            (5 | 1 << 13, vec![1])
        );
        let (mode, nodes) = one("MPOL_WEIGHTED_INTERLEAVE", "1500", &[]);
        assert_eq!((mode, nodes.len()), (6, 1500 / 64 + 1));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_named() {
        for (fields, fault) in [
            (
                json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
                "nodes: MPOL_DEFAULT: mode requires 0 nodes but got 8",
            ),
            (
                json!({"mode": "MPOL_BIND"}),
                "nodes: MPOL_BIND: mode requires at least one node but got 0",
            ),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
                "nodes: invalid memory policy nodes: '0-9876543210' is no range up to 65535",
            ),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
                "flags: invalid memory policy flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each \
                 other; keep one",
            ),
        ] {
            let found = faults(|v| policy(fields, v));
            assert_eq!(found, format!("linux.memoryPolicy.{fault}"));
        }
    }
}
