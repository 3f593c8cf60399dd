//! Lists of hosts in the short form of Slurm.

/// The first host of a list of Slurm, such as `rack[1-2]-node[07,09],other`.
pub(super) fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list;
    while let Some(end) = rest.find(['[', ',']) {
        host.push_str(&rest[..end]);
        if rest[end..].starts_with(',') {
            return Some(host);
        }
        let (range, after) = rest[end + 1..].split_once(']')?;
        let first = range.split([',', '-']).next()?;
        host.push_str(first);
        rest = after;
    }
    host.push_str(rest);
    Some(host).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_slurm_are_expanded() {
        // The first line of `scontrol show hostnames`.
        for (list, expected) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("node[3-5]", "node3"),
            ("node[03,07-09]", "node03"),
            ("rack[1-2]-node[4-5],x", "rack1-node4"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(expected), "{list}");
        }
        assert_eq!(first_host("node[1"), None);
        assert_eq!(first_host(""), None);
    }
}
