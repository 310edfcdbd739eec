//! What listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Host;
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
}
