//! Lists of numbers as the kernel writes them ("0-3,7"): of CPUs, of NUMA nodes.

use super::Violations;

/// Far above any machine's, so that a slip of the keyboard does not ask for gigabytes of mask.
const MAX: usize = 65535;

/// A list as a mask, whose first word has the first 64; None for an empty one. `what` names one of the things listed, for messages.
pub fn mask(list: &str, what: &str, at: &str, v: &mut Violations) -> Option<Vec<u64>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            v.add(
                at,
                format!("invalid {what}s: '{part}' is no number and no range"),
            );
            continue;
        };
        if first > last || last > MAX {
            v.add(
                at,
                format!("invalid {what}s: '{part}' is no range up to {MAX}"),
            );
            continue;
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0u64);
        }
        for n in first..=last {
            mask[n / 64] |= 1 << (n % 64);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (list, expected) in [
            ("", None),
            (" , ", None),
            ("0", Some(vec![1])),
            ("0-3,7", Some(vec![0x8f])),
            (" 1 ,, 2-2,", Some(vec![6])),
            ("63,64", Some(vec![1 << 63, 1])),
            ("0-127", Some(vec![u64::MAX; 2])),
        ] {
            assert_eq!(good(|v| mask(list, "CPU", "x", v)), expected, "{list:?}");
        }
        // beyond the 1024 of glibc's cpu_set_t
        let long = good(|v| mask("1500,65535", "CPU", "x", v)).unwrap();
        assert_eq!(
            (long.len(), long[1500 / 64], long[1023]),
            (1024, 1 << (1500 % 64), 1 << 63)
        );
        for (list, part, fault) in [
            ("0-65536", "0-65536", "no range up to 65535"),
            ("1,3-2", "3-2", "no range up to 65535"),
            ("a", "a", "no number and no range"),
            ("1-", "1-", "no number and no range"),
            ("-1", "-1", "no number and no range"),
            ("1-2-3", "1-2-3", "no number and no range"),
            ("\u{661}", "\u{661}", "no number and no range"),
        ] {
            let found = faults(|v| mask(list, "CPU", "x", v));
            assert_eq!(found, format!("x: invalid CPUs: '{part}' is {fault}"));
        }
    }
}
