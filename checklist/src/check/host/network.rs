//! What listens, and what is let in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Host, said};
use crate::error::{Result, file};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// TCP sockets that listen on other addresses than loopback, against the ports that may.
pub(super) async fn ports(host: &Host, _: &Context) -> Result<Finding> {
    let mut listening = Vec::new();
    for name in ["proc/net/tcp", "proc/net/tcp6"] {
        let path = host.at(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => listening.extend(listeners(&text)),
            // A host without IPv6 has no such file.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && name.ends_with('6') => {}
            Err(e) => return Err(file(&path, "cannot be read", e)),
        }
    }
    let mut open: Vec<(u16, IpAddr)> =
        listening.into_iter().filter(|(ip, _)| !ip.is_loopback()).map(|(ip, p)| (p, ip)).collect();
    open.sort_unstable();
    open.dedup();
    let fact = open.iter().map(|(port, ip)| format!("{ip} {port}")).collect::<Vec<_>>().join("\n");
    let (good, bad): (Vec<_>, Vec<_>) = open.into_iter().partition(|(port, _)| host.ports.contains(port));
    let places = bad.iter().map(|(port, ip)| Place::new(format!("port {port}"), None, format!("listens on {ip}")));
    Ok(match bad.len() {
        0 => Finding::pass(format!("{} sockets listen for others, all of them allowed", good.len())),
        n => Finding::fail(format!("{n} sockets listen for others that are not allowed")).with_places(places),
    }
    .with_fact(fact))
}

/// The sockets of `/proc/net/tcp` that listen. Addresses are words of 32 bits in the order of the machine.
fn listeners(text: &str) -> Vec<(IpAddr, u16)> {
    let one = |line: &str| {
        let mut parts = line.split_whitespace().skip(1);
        let (local, _, state) = (parts.next()?, parts.next()?, parts.next()?);
        if state != "0A" {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        let words = address.as_bytes().chunks(8).map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        });
        let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
        let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
            Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
            Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)).to_canonical(),
        };
        Some((ip, u16::from_str_radix(port, 16).ok()?))
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// What comes in is dropped unless it is allowed.
pub(super) async fn firewall(host: &Host, _: &Context) -> Result<Finding> {
    if !host.is_this_one() {
        return Ok(Finding::unknown("no program of an image is run"));
    }
    for (program, arguments, judge) in [
        ("nft", ["list", "ruleset"], nftables as fn(&str) -> Option<bool>),
        ("/usr/sbin/nft", ["list", "ruleset"], nftables),
        ("iptables", ["-S", "INPUT"], iptables),
        ("/usr/sbin/iptables", ["-S", "INPUT"], iptables),
    ] {
        let Some((worked, text)) = said(program, &arguments).await? else { continue };
        if !worked {
            let why = text.lines().next().unwrap_or("it says nothing").chars().take(120).collect::<String>();
            return Ok(Finding::unknown(format!("the rules of the firewall cannot be read: {why}")));
        }
        match judge(&text) {
            Some(true) => {
                return Ok(
                    Finding::pass(format!("{program}: what comes in is dropped unless it is allowed")).with_fact(text)
                );
            }
            Some(false) => {
                return Ok(Finding::fail("the firewall lets everything in that no rule names")
                    .at("input", None, "policy accept")
                    .with_fact(text));
            }
            None => {}
        }
    }
    Ok(Finding::unknown("no rules of nftables or iptables: one outside of this host is not visible from here"))
}

/// Whether the input is closed: a base chain of the hook `input` that drops by policy, or by its last rule. `None` without a chain.
fn nftables(rules: &str) -> Option<bool> {
    let mut found = None;
    for chain in rules.split("chain ").skip(1) {
        // Sets of ports have braces of their own.
        let (mut depth, mut end) = (0, chain.len());
        for (at, c) in chain.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if c == '}' && depth == 0 {
                end = at;
                break;
            }
        }
        let body = &chain[..end];
        if !body.contains("hook input") {
            continue;
        }
        let last = body.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default();
        let whole = |l: &str| {
            let words: Vec<&str> = l
                .split_whitespace()
                .filter(|w| !matches!(*w, "counter" | "packets" | "bytes") && w.parse::<u64>().is_err())
                .collect();
            matches!(words.first(), Some(&"drop" | &"reject"))
        };
        let closed = body.contains("policy drop") || whole(last);
        found = Some(found.unwrap_or(false) || closed);
    }
    found
}

/// The same of `iptables -S INPUT`.
fn iptables(rules: &str) -> Option<bool> {
    let policy = rules.lines().find(|l| l.starts_with("-P INPUT"))?;
    let last = rules.lines().rfind(|l| l.starts_with("-A INPUT"));
    let all = last.is_some_and(|l| {
        matches!(l.trim(), "-A INPUT -j DROP" | "-A INPUT -j REJECT") || l.starts_with("-A INPUT -j REJECT ")
    });
    Some(policy.ends_with("DROP") || all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen() {
        let text = "  sl  local_address rem_address   st\n   0: 0100007F:1538 00000000:0000 0A 0\n   1: 00000000:0016 00000000:0000 0A 0\n   2: 0100007F:1538 0100007F:9999 01 0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(listeners(text), [(IpAddr::from([127, 0, 0, 1]), 5432), (IpAddr::from([0, 0, 0, 0]), 22)]);
            let six = "sl\n 0: 00000000000000000000000001000000:0050 0:0 0A\n 1: 0000000000000000FFFF00000100007F:0051 0:0 0A\n";
            let all = listeners(six);
            assert!(all[0].0.is_loopback() && all[1].0.is_loopback(), "{all:?}");
        }
    }

    #[test]
    fn rules_that_close_and_rules_that_do_not() {
        let chain = |body: &str| {
            format!(
                "table inet filter {{\n  chain input {{\n    type filter hook input priority filter; {body}\n  }}\n}}\n"
            )
        };
        assert_eq!(nftables(&chain("policy drop;\n    ct state established accept")), Some(true));
        assert_eq!(
            nftables(&chain("policy accept;\n    tcp dport 22 accept\n    counter packets 7 bytes 420 drop")),
            Some(true)
        );
        assert_eq!(nftables(&chain("policy accept;\n    tcp dport 22 drop")), Some(false), "one port is not all");
        assert_eq!(nftables(&chain("policy accept;\n    tcp dport { 22, 80, 443 } accept\n    drop")), Some(true));
        assert_eq!(nftables(&chain("policy accept;")), Some(false));
        assert_eq!(
            nftables("table ip nat { chain post { type nat hook postrouting priority 0; policy accept; } }"),
            None
        );
        assert_eq!(nftables(""), None);
        assert_eq!(iptables("-P INPUT DROP\n"), Some(true));
        assert_eq!(
            iptables("-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with x\n"),
            Some(true)
        );
        assert_eq!(iptables("-P INPUT ACCEPT\n-A INPUT -p tcp --dport 9 -j DROP\n"), Some(false));
    }
}
