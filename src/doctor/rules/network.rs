//! Judges what the kernel's network settings let through: queues of new connections, ports, connection tracking, socket memory.

use super::super::facts::{Facts, Network};
use super::super::report::{Bound, Finding, Report, Verdict, bytes, count};
use crate::base::limits::LISTEN_BACKLOG;

/// A wide range that leaves the usual listen ports alone.
const PORTS_WANTED: (u16, u16) = (10_000, 65_535);
/// So few local ports are a limit nobody set on purpose (28,232 is the default).
const FEW_PORTS: u64 = 10_000;

/// Adds the findings and what they let in. `held` is what descriptors and memory let in.
pub fn judge(facts: &Facts, held: Option<u64>, report: &mut Report) {
    let network = &facts.network;
    report.findings.push(backlog(network));
    report.findings.push(syn_backlog(network));
    report
        .findings
        .push(port_range(network, facts.plan.has_proxy_here, held));
    report
        .findings
        .extend(listen_ports(network, &facts.plan.ports));
    match facts.is_linux {
        true => conntrack(network, held, report),
        false => report
            .findings
            .push(Finding::unknown("conntrack", "a table of connections")),
    }
    report.findings.push(socket_memory(network, held));
}

fn backlog(network: &Network) -> Finding {
    let ours = LISTEN_BACKLOG as u64;
    let Some(max) = network.somaxconn else {
        return Finding::unknown("somaxconn", "net.core.somaxconn");
    };
    let found = format!("net.core.somaxconn is {}", count(max));
    match max < ours {
        true => Finding::new(
            "somaxconn",
            Verdict::Warn,
            found,
            format!("the gateway asks for {} connections waiting to be accepted per shard and gets {}: in a storm the rest wait a second or more for their next try", count(ours), count(max)),
        )
        .sysctl("net.core.somaxconn", &ours.to_string(), true),
        false => Finding::new(
            "somaxconn",
            Verdict::Ok,
            found,
            format!("the gateway's {} waiting connections per shard fit", count(ours)),
        ),
    }
}

fn syn_backlog(network: &Network) -> Finding {
    const CHECK: &str = "tcp_max_syn_backlog";
    let Some(max) = network.syn_backlog else {
        return Finding::unknown(CHECK, "net.ipv4.tcp_max_syn_backlog");
    };
    let cookies = network.syncookies.is_some_and(|on| on != 0);
    let found = format!(
        "net.ipv4.tcp_max_syn_backlog is {}, SYN cookies are {}",
        count(max),
        if cookies { "on" } else { "off" }
    );
    match max < LISTEN_BACKLOG as u64 && !cookies {
        true => Finding::new(
            CHECK,
            Verdict::Warn,
            found,
            "without cookies the kernel drops handshakes beyond it: in a storm viewers wait a second or more",
        )
        .sysctl("net.ipv4.tcp_syncookies", "1", true)
        .sysctl("net.ipv4.tcp_max_syn_backlog", &LISTEN_BACKLOG.to_string(), true),
        false => Finding::new(CHECK, Verdict::Ok, found, "half-open connections of a storm are not dropped"),
    }
}

fn port_range(network: &Network, has_proxy_here: bool, held: Option<u64>) -> Finding {
    const CHECK: &str = "local ports";
    let Some((low, high)) = network.port_range else {
        return Finding::unknown(CHECK, "net.ipv4.ip_local_port_range");
    };
    let ports = u64::from(high.saturating_sub(low)) + 1;
    let found = format!("{low} to {high}: {} ports", count(ports));
    let matters = "a proxy or load generator on this machine opens at most so many connections from one source address to one address of the gateway; viewers from elsewhere bring their own";
    let is_tight = has_proxy_here && held.is_some_and(|held| ports < held);
    if !is_tight && ports >= FEW_PORTS {
        return Finding::new(CHECK, Verdict::Ok, found, matters);
    }
    let (low, high) = PORTS_WANTED;
    let finding = Finding::new(CHECK, Verdict::Warn, found, matters).sysctl(
        "net.ipv4.ip_local_port_range",
        &format!("{low} {high}"),
        true,
    );
    match has_proxy_here {
        true => finding.mend("nginx", "split_clients $remote_addr$remote_port $source { 50% 127.0.0.2; * 127.0.0.3; }   # and proxy_bind $source; each address has its own ports"),
        false => finding,
    }
}

/// A listen port inside the local range may be taken by an outgoing connection before the gateway starts.
fn listen_ports(network: &Network, ports: &[u16]) -> Option<Finding> {
    let (low, high) = network.port_range?;
    let is_reserved = |port: u16| {
        let mut ranges = network.reserved_ports.iter();
        ranges.any(|&(first, last)| (first..=last).contains(&port))
    };
    let exposed: Vec<String> = ports
        .iter()
        .filter(|&&port| (low..=high).contains(&port) && !is_reserved(port))
        .map(u16::to_string)
        .collect();
    if exposed.is_empty() {
        return None;
    }
    let found = format!(
        "{} within the local ports {low} to {high}",
        exposed.join(" and ")
    );
    let means = "an outgoing connection may hold the listen port when the gateway starts, which then fails with \"address in use\"";
    let mut kept: Vec<String> = network
        .reserved_ports
        .iter()
        .map(|&(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    kept.extend(exposed);
    let reserved = kept.join(",");
    Some(
        Finding::new("listen ports", Verdict::Warn, found, means).sysctl(
            "net.ipv4.ip_local_reserved_ports",
            &reserved,
            true,
        ),
    )
}

fn conntrack(network: &Network, held: Option<u64>, report: &mut Report) {
    const CHECK: &str = "conntrack";
    let Some((entries, max)) = network.conntrack else {
        report.findings.push(Finding::new(
            CHECK,
            Verdict::Ok,
            "not loaded, or not visible here",
            "no table of connections to fill up; a host's own table may still count this container's",
        ));
        return;
    };
    let left = max.saturating_sub(entries);
    let found = format!("{} of {} entries are taken", count(entries), count(max));
    let wanted = held.unwrap_or(max).saturating_mul(2).max(max);
    let is_full = entries.saturating_mul(100) >= max.saturating_mul(95);
    let is_tight = held.is_some_and(|held| left < held);
    let means = match (is_full, is_tight) {
        (true, _) => "the table is full or nearly so: new connections are dropped without a word (dmesg: \"nf_conntrack: table full\")".to_string(),
        (false, true) => format!("it lets in {} more connections and drops the rest without a word", count(left)),
        (false, false) => "every viewer is an entry, and there are enough".to_string(),
    };
    let verdict = match (is_full, is_tight) {
        (true, _) => Verdict::Bad,
        (false, true) => Verdict::Warn,
        (false, false) => Verdict::Ok,
    };
    let finding = Finding::new(CHECK, verdict, found, means);
    report.findings.push(match verdict {
        Verdict::Ok => finding,
        _ => finding.sysctl("net.netfilter.nf_conntrack_max", &wanted.to_string(), false),
    });
    report.bounds.push(Bound {
        what: "connection tracking (nf_conntrack_max)".into(),
        viewers: left,
    });
}

/// An idle viewer takes none of it; one that waits for its kernel to send takes at least a page.
fn socket_memory(network: &Network, held: Option<u64>) -> Finding {
    let Some([low, pressure, high]) = network.tcp_mem else {
        return Finding::unknown("tcp_mem", "net.ipv4.tcp_mem");
    };
    let found = format!(
        "net.ipv4.tcp_mem is {low} {pressure} {high} pages: pressure from {}",
        bytes(pressure.saturating_mul(network.page_bytes))
    );
    match held {
        Some(held) if pressure < held => Finding::new(
            "tcp_mem",
            Verdict::Warn,
            found,
            format!("with a page unsent to each of {} viewers the kernel is past it and shrinks everyone's buffers", count(held)),
        )
        .sysctl(
            "net.ipv4.tcp_mem",
            &format!("{held} {} {}", held.saturating_mul(3) / 2, held.saturating_mul(2)),
            false,
        ),
        _ => Finding::new(
            "tcp_mem",
            Verdict::Ok,
            found,
            "a page unsent to every viewer stays below it",
        ),
    }
}
