//! What is let in, and what is handed to containers past that.

use std::ops::RangeInclusive;

use super::{Host, said};
use crate::error::{Result, file};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// What comes in is dropped unless it is allowed, over IPv4 and IPv6; nothing is handed on that may not listen.
pub(super) async fn firewall(host: &Host, _: &Context) -> Result<Finding> {
    if !host.is_this_one() {
        return Ok(Finding::unknown("no program of an image is run"));
    }
    let path = host.at("proc/net/if_inet6");
    let addresses = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // A host without IPv6 has no such file.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(file(&path, "cannot be read", e)),
    };
    Ok(match look(&[], has_global_address(&addresses)).await? {
        Ok(rules) => judge(&rules, &host.ports),
        Err(why) => Finding::unknown(format!("the rules of the firewall cannot be read: {why}")),
    })
}

/// The rules of a host, as their programs say them.
#[derive(Debug, Default)]
struct Rules {
    /// `nft list ruleset`.
    nft: Option<String>,
    /// `iptables -S INPUT` and `ip6tables -S INPUT`.
    input: [Option<String>; 2],
    /// `-t nat -S` of both.
    nat: Vec<String>,
    /// `iptables -S DOCKER-USER`.
    docker_user: Option<String>,
    /// Whether others can reach this host over IPv6.
    has_v6: bool,
}

/// Asks each program that is there; the error is what one of them says that may not. `within` is put before each.
async fn look(within: &[&str], has_v6: bool) -> Result<std::result::Result<Rules, String>> {
    let mut rules = Rules { has_v6, ..Rules::default() };
    match ask(within, "nft", &["list", "ruleset"]).await? {
        Some((true, text)) => rules.nft = Some(text),
        Some((false, why)) => return Ok(Err(first_line(&why))),
        None => {}
    }
    for (at, program) in ["iptables", "ip6tables"].into_iter().enumerate() {
        match ask(within, program, &["-S", "INPUT"]).await? {
            Some((true, text)) => rules.input[at] = Some(text),
            // Of a chain that nft made, iptables says that it is none of its own; nft has told of it.
            Some((false, why)) if rules.nft.is_none() => return Ok(Err(first_line(&why))),
            Some((false, _)) | None => continue,
        }
        if let Some((true, text)) = ask(within, program, &["-t", "nat", "-S"]).await? {
            rules.nat.push(text);
        }
    }
    // The chain is Docker's: without Docker it is not there.
    if let Some((true, text)) = ask(within, "iptables", &["-S", "DOCKER-USER"]).await? {
        rules.docker_user = Some(text);
    }
    Ok(Ok(rules))
}

/// By the path, or where Debian has it for root alone.
async fn ask(within: &[&str], program: &str, arguments: &[&str]) -> Result<Option<(bool, String)>> {
    for program in [program.to_owned(), format!("/usr/sbin/{program}")] {
        let whole: Vec<&str> =
            within.iter().copied().chain([program.as_str()]).chain(arguments.iter().copied()).collect();
        let Some((worked, text)) = said(whole[0], &whole[1..]).await? else { continue };
        return Ok(Some((worked, text)));
    }
    Ok(None)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("it says nothing").chars().take(120).collect()
}

fn judge(rules: &Rules, allowed: &[u16]) -> Finding {
    let empty = String::new();
    let nft = rules.nft.as_ref().unwrap_or(&empty);
    // A packet has to pass all of them: one that is closed is enough.
    let closed = |at: usize| {
        let by_nft = base_chains(nft).filter(|chain| chain.families[at]).filter_map(|chain| chain.closed());
        let by_iptables = rules.input[at].as_deref().and_then(iptables_closed);
        by_nft.chain(by_iptables).reduce(|a, b| a || b)
    };
    let (v4, v6) = (closed(0), closed(1));
    let handed = handed_on(rules, allowed);
    let fact = [nft.as_str()]
        .into_iter()
        .chain(rules.input.iter().flatten().map(String::as_str))
        .chain(rules.nat.iter().map(String::as_str))
        .flat_map(str::lines)
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(without_counts)
        .collect::<Vec<_>>()
        .join("\n");
    let open = |what: &str| Finding::fail(format!("the firewall lets everything in over {what} that no rule names"));
    let by_user =
        rules.docker_user.as_deref().is_some_and(|text| text.contains("-j DROP") || text.contains("-j REJECT"));
    match (v4, v6) {
        _ if !handed.is_empty() && by_user => Finding::warn(format!(
            "{} ports are handed to containers past the rules of what comes in; whether DOCKER-USER keeps others out has to be looked at",
            handed.len()
        ))
        .with_places(handed),
        _ if !handed.is_empty() => Finding::fail(format!(
            "{} ports are handed to containers past the rules of what comes in",
            handed.len()
        ))
        .with_places(handed),
        (Some(false), _) => open("IPv4").at("input", None, "policy accept"),
        (Some(true), Some(true)) => Finding::pass("what comes in is dropped unless it is allowed"),
        (Some(true), _) if !rules.has_v6 => Finding::pass(
            "what comes in over IPv4 is dropped unless it is allowed; nobody else reaches this host over IPv6",
        ),
        (Some(true), _) => open("IPv6").at("input", None, "closed over IPv4 only"),
        (None, Some(false)) if rules.has_v6 => open("IPv6").at("input", None, "policy accept"),
        (None, _) => Finding::unknown(
            "no rules of nftables or iptables, so this host lets everything in: a firewall outside of it is not visible from here",
        ),
    }
    .with_fact(fact)
}

/// Packets and bytes change with every look, and are no rule.
fn without_counts(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "packets" | "bytes" if words.peek().is_some_and(|w| w.bytes().all(|b| b.is_ascii_digit())) => {
                words.next();
            }
            _ => out.push(word),
        }
    }
    out.join(" ")
}

/// A chain of nftables that sees what comes in.
struct BaseChain {
    /// IPv4, IPv6.
    families: [bool; 2],
    drops: bool,
    rules: Vec<String>,
}

impl BaseChain {
    /// The first rule without a condition decides; where there is none, the policy. `None` of a chain that nobody has filled, as
    /// Debian's own file has it.
    fn closed(&self) -> Option<bool> {
        let whole = self.rules.iter().find_map(|rule| match rule.split_whitespace().find(|w| *w != "counter")? {
            "accept" => Some(false),
            "drop" | "reject" => Some(true),
            _ => None,
        });
        (self.drops || !self.rules.is_empty()).then(|| whole.unwrap_or(self.drops))
    }
}

fn base_chains(ruleset: &str) -> impl Iterator<Item = BaseChain> {
    let (mut out, mut families, mut chain) = (Vec::new(), [false; 2], None::<BaseChain>);
    let mut is_input = false;
    for line in ruleset.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix("table ") {
            families = match table.split_whitespace().next() {
                Some("inet") => [true, true],
                Some("ip") => [true, false],
                Some("ip6") => [false, true],
                _ => [false, false],
            };
        } else if line.starts_with("chain ") {
            (chain, is_input) = (Some(BaseChain { families, drops: false, rules: Vec::new() }), false);
        } else if line == "}" {
            out.extend(chain.take().filter(|_| is_input));
        } else if let Some(chain) = &mut chain {
            if line.starts_with("type ") && line.contains(" hook ") {
                is_input = line.starts_with("type filter hook input");
                chain.drops = line.contains("policy drop");
            } else if !line.is_empty() && !line.starts_with('#') {
                chain.rules.push(without_counts(line));
            }
        }
    }
    out.into_iter()
}

/// The same of `iptables -S INPUT`; `None` without rules: that is what the kernel begins with.
fn iptables_closed(rules: &str) -> Option<bool> {
    let policy = rules.lines().find_map(|l| l.strip_prefix("-P INPUT "))?;
    if policy.trim() == "ACCEPT" && !rules.contains("-A INPUT ") {
        return None;
    }
    let whole = rules.lines().filter_map(|l| l.strip_prefix("-A INPUT ")).find_map(|rule| {
        match without_comment(rule).strip_prefix("-j ")?.split_whitespace().next()? {
            "ACCEPT" => Some(false),
            "DROP" | "REJECT" => Some(true),
            _ => None,
        }
    });
    Some(whole.unwrap_or(policy.trim() == "DROP"))
}

/// A comment is no condition: `-m comment --comment all -j ACCEPT` accepts everything.
fn without_comment(rule: &str) -> String {
    let Some((before, rest)) = rule.split_once("-m comment --comment ") else { return rule.to_owned() };
    let after = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map_or("", |(_, after)| after),
        None => rest.split_once(' ').map_or("", |(_, after)| after),
    };
    format!("{before}{}", after.trim_start())
}

/// Ports that are handed to another address before the rules of what comes in are asked, as Docker does it, and that may not listen for
/// others.
fn handed_on(rules: &Rules, allowed: &[u16]) -> Vec<Place> {
    let lines = rules.nft.iter().chain(&rules.nat).flat_map(|text| text.lines());
    let mut places = Vec::new();
    for line in lines.map(str::trim) {
        let is_one = line.contains(" dnat ") || line.contains("-j DNAT") || line.contains("xt target \"DNAT\"");
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |names: &[&str]| words.windows(2).find(|w| names.contains(&w[0])).map(|w| w[1]);
        // What is only handed on for this host itself, as `-p 127.0.0.1:5432:5432` says it.
        let is_own = after(&["-d", "daddr"]).is_some_and(|to| to.starts_with("127.") || to.starts_with("::1"));
        // Docker's own resolver stands in the name space of its containers.
        if !is_one || is_own {
            continue;
        }
        let list = match after(&["dport", "--dport", "--dports"]) {
            Some("{") => line.split_once("dport {").and_then(|(_, rest)| Some(rest.split_once('}')?.0)),
            list => list,
        };
        // One that cannot be read may be any port.
        let ports: Vec<RangeInclusive<u16>> =
            list.and_then(|list| list.split(',').map(range).collect()).unwrap_or_default();
        let shown = |range: &RangeInclusive<u16>| match range.start() == range.end() {
            true => format!("port {}", range.start()),
            false => format!("ports {} to {}", range.start(), range.end()),
        };
        let bad = ports.iter().filter(|range| (*range).clone().any(|port| !allowed.contains(&port)));
        places.extend(bad.map(|range| Place::new(shown(range), None, "is handed on")));
        if ports.is_empty() {
            places.push(Place::new("all ports", None, "are handed on by a rule whose ports cannot be told"));
        }
    }
    places.sort();
    places.dedup();
    places
}

/// `5432`, `8000-8010`, `8000:8010`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let text = text.trim();
    let (from, to) = text.split_once(['-', ':']).unwrap_or((text, text));
    Some(from.parse().ok()?..=to.parse().ok()?)
}

/// `/proc/net/if_inet6`: whether an address of it has the scope of all the world.
fn has_global_address(text: &str) -> bool {
    let global = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, _, _, "00", ..])
    };
    text.lines().any(global)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn nft(family: &str, body: &str) -> String {
        format!(
            "table {family} filter {{\n\tset web {{\n\t\ttype inet_service\n\t}}\n\tchain input {{\n\t\ttype filter hook input priority filter; {body}\n\t}}\n}}\n"
        )
    }

    fn outcome(rules: &Rules) -> Outcome {
        judge(rules, &[22, 80, 443]).outcome
    }

    fn by_nft(family: &str, body: &str) -> Outcome {
        outcome(&Rules { nft: Some(nft(family, body)), has_v6: true, ..Rules::default() })
    }

    #[test]
    fn rules_that_close_and_rules_that_do_not() {
        assert_eq!(by_nft("inet", "policy drop;\n\t\tct state established accept"), Outcome::Pass);
        let last = "policy accept;\n\t\ttcp dport { 22, 80, 443 } accept\n\t\tcounter packets 7 bytes 420 drop";
        assert_eq!(by_nft("inet", last), Outcome::Pass);
        assert_eq!(by_nft("inet", "policy accept;\n\t\ttcp dport 22 drop"), Outcome::Fail, "one port is not all");
        assert_eq!(by_nft("inet", "policy accept;"), Outcome::Unknown, "nobody has filled it");
        assert_eq!(
            by_nft("inet", "policy drop;\n\t\tcounter packets 1 bytes 2 accept"),
            Outcome::Fail,
            "let in before"
        );
        assert_eq!(by_nft("ip", "policy drop;"), Outcome::Fail, "IPv6 is open");
        assert_eq!(by_nft("ip6", "policy drop;"), Outcome::Unknown, "nothing is known of IPv4");
        let no_v6 = Rules { nft: Some(nft("ip", "policy drop;")), ..Rules::default() };
        assert_eq!(outcome(&no_v6), Outcome::Pass, "nobody reaches it over IPv6");
        assert_eq!(outcome(&Rules { nft: Some(String::new()), ..Rules::default() }), Outcome::Unknown);
        let iptables = |v4: &str, v6: &str| {
            let input = [Some(v4.to_owned()), (!v6.is_empty()).then(|| v6.to_owned())];
            outcome(&Rules { input, has_v6: true, ..Rules::default() })
        };
        assert_eq!(iptables("-P INPUT DROP\n", "-P INPUT DROP\n"), Outcome::Pass);
        assert_eq!(iptables("-P INPUT DROP\n", "-P INPUT ACCEPT\n"), Outcome::Fail);
        assert_eq!(iptables("-P INPUT ACCEPT\n", "-P INPUT ACCEPT\n"), Outcome::Unknown);
        assert_eq!(iptables("-P INPUT DROP\n", ""), Outcome::Fail);
        let last = "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with x\n";
        assert_eq!(iptables(last, last), Outcome::Pass);
        let one = "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 9 -j DROP\n";
        assert_eq!(iptables(one, one), Outcome::Fail);
        let all = "-P INPUT DROP\n-A INPUT -j ACCEPT\n-A INPUT -j DROP\n";
        assert_eq!(iptables(all, all), Outcome::Fail);
    }

    #[test]
    fn comments_are_no_condition_and_unreadable_ports_may_be_any() {
        let rules = |rule: &str| format!("-P INPUT DROP\n-A INPUT -m comment --comment {rule}\n");
        assert_eq!(iptables_closed(&rules("\"let all in\" -j ACCEPT")), Some(false));
        assert_eq!(iptables_closed(&rules("all -j ACCEPT")), Some(false));
        assert_eq!(iptables_closed(&rules("\"-j ACCEPT\" -p tcp -j ACCEPT")), Some(true), "of TCP only");
        let handed = |ports: &str| {
            let nat =
                vec![format!("-A DOCKER -p tcp -m multiport --dports {ports} -j DNAT --to-destination 172.17.0.2")];
            handed_on(&Rules { nat, ..Rules::default() }, &[80, 443]).into_iter().map(|p| p.at).collect::<Vec<_>>()
        };
        assert_eq!(handed("80,443"), Vec::<String>::new());
        assert_eq!(handed("80,5432"), ["port 5432"]);
        assert_eq!(handed("80,postgresql"), ["all ports"]);
    }

    #[test]
    fn counters_are_no_rule() {
        let with = |n: u32| Rules {
            nft: Some(nft("inet", &format!("policy drop;\n\t\ttcp dport 22 counter packets {n} bytes {n} accept"))),
            ..Rules::default()
        };
        assert_eq!(judge(&with(1), &[]).fact, judge(&with(2), &[]).fact);
        let other = Rules { nft: Some(nft("inet", "policy drop;\n\t\ttcp dport 23 accept")), ..Rules::default() };
        assert_ne!(judge(&with(1), &[]).fact, judge(&other, &[]).fact);
    }

    #[test]
    fn addresses_of_all_the_world() {
        let own = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000042acfffe110002 02 40 20 80     eth0\n";
        assert!(!has_global_address(own) && !has_global_address(""));
        assert!(has_global_address(&format!("{own}20010db8000000000042acfffe110002 02 40 00 80     eth0\n")));
    }

    /// A name space of the network of its own, with the rules of a script in it; it ends with the value.
    #[cfg(target_os = "linux")]
    struct Namespace(std::process::Child);

    #[cfg(target_os = "linux")]
    impl Namespace {
        fn with(script: &str) -> Self {
            use std::io::{BufRead, BufReader};
            let shell = format!("set -e\nPATH=$PATH:/usr/sbin\n{script}\necho ready\nexec sleep 600");
            let mut child = std::process::Command::new("unshare")
                .args(["--net", "sh", "-c", &shell])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n", "the rules could not be set; this test needs root, nftables and iptables");
            Self(child)
        }

        async fn finding(&self, more: &[&str], has_v6: bool) -> Finding {
            let pid = self.0.id().to_string();
            let within: Vec<&str> =
                ["nsenter", "--net", "--target", &pid].into_iter().chain(more.iter().copied()).collect();
            match look(&within, has_v6).await.unwrap() {
                Ok(rules) => judge(&rules, &[22, 80, 443]),
                Err(why) => Finding::unknown(why),
            }
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for Namespace {
        fn drop(&mut self) {
            let killed = self.0.kill().and_then(|()| self.0.wait());
            assert!(killed.is_ok(), "{killed:?}");
        }
    }

    /// Real rules in the kernel, by nft, and read without the right to.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn real_rules_of_nftables() {
        let set = |policy: &str| {
            Namespace::with(&format!(
                "nft -f - <<'END'\ntable inet filter {{\n chain input {{\n type filter hook input priority filter; policy {policy};\n ct state established,related accept\n iifname lo accept\n tcp dport {{ 22, 80, 443 }} counter accept\n }}\n}}\nEND"
            ))
        };
        let closed = set("drop");
        assert_eq!(closed.finding(&[], true).await.outcome, Outcome::Pass, "{:?}", closed.finding(&[], true).await);
        assert_eq!(set("accept; tcp dport 25 drop").finding(&[], true).await.outcome, Outcome::Fail);
        assert_eq!(Namespace::with("nft list ruleset").finding(&[], true).await.outcome, Outcome::Unknown, "no rules");
        let nobody = closed.finding(&["setpriv", "--reuid=65534", "--clear-groups"], true).await;
        assert_eq!(nobody.outcome, Outcome::Unknown, "closed, but that cannot be read: {nobody:?}");
        assert!(nobody.reason.contains("not permitted") || nobody.reason.contains("must be root"), "{nobody:?}");
    }

    /// ufw's and Docker's rules at once: what is published goes past what ufw says.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_published_port_goes_past_ufw() {
        let ufw = "for t in iptables ip6tables; do $t -P INPUT DROP; $t -A INPUT -p tcp --dport 443 -j ACCEPT; done";
        let docker = |rule: &str| {
            format!(
                "{ufw}\niptables -N DOCKER-USER\niptables -A DOCKER-USER -j RETURN\niptables -t nat -N DOCKER\niptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\niptables -t nat -A DOCKER {rule} -j DNAT --to-destination 172.17.0.2:5432"
            )
        };
        assert_eq!(Namespace::with(ufw).finding(&[], true).await.outcome, Outcome::Pass);
        let published = Namespace::with(&docker("! -i docker0 -p tcp -m tcp --dport 5432")).finding(&[], true).await;
        assert_eq!(published.outcome, Outcome::Fail, "{published:?}");
        assert_eq!(published.places, [Place::new("port 5432", None, "is handed on")]);
        let local = docker("-d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 5432");
        assert_eq!(Namespace::with(&local).finding(&[], true).await.outcome, Outcome::Pass, "for this host alone");
        let shop = docker("! -i docker0 -p tcp -m tcp --dport 443");
        assert_eq!(Namespace::with(&shop).finding(&[], true).await.outcome, Outcome::Pass, "a port that may listen");
        let kept = docker("! -i docker0 -p tcp -m tcp --dport 5432") + "\niptables -I DOCKER-USER -i eth0 -j DROP";
        assert_eq!(Namespace::with(&kept).finding(&[], true).await.outcome, Outcome::Warn);
        let v4_only = "iptables -P INPUT DROP";
        assert_eq!(Namespace::with(v4_only).finding(&[], true).await.outcome, Outcome::Fail);
        assert_eq!(Namespace::with(v4_only).finding(&[], false).await.outcome, Outcome::Pass);
    }
}
