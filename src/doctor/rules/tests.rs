//! Each verdict and each command, from facts made up for it.

use super::super::facts::*;
use super::super::report::{Finding, Report, Verdict};
use super::judge;
use crate::config::checked::FdTables;

/// A machine with nothing to complain about.
fn good() -> Facts {
    Facts {
        system: "Linux 6.18".into(),
        is_linux: true,
        in_container: false,
        plan: Plan {
            mistakes: None,
            cores: 4,
            shards: 4,
            fd_tables: FdTables::PerShard,
            connections_max: 0,
            ports: vec![8080, 8081],
            has_proxy_here: false,
        },
        descriptors: Descriptors {
            soft: Some(1024),
            hard: Some(20_000),
            own_table: Ok(()),
            nr_open: Some(1 << 20),
            files_open: Some(2_000),
            files_max: Some(u64::MAX / 2),
        },
        network: Network {
            port_range: Some((32_768, 60_999)),
            reserved_ports: Vec::new(),
            somaxconn: Some(4096),
            syn_backlog: Some(2048),
            syncookies: Some(1),
            conntrack: None,
            tcp_mem: Some([100_000, 200_000, 400_000]),
            page_bytes: 4096,
        },
        memory: Memory {
            available: Some(8 << 30),
            cgroup: None,
            swap: Some(0),
            swappiness: Some(60),
            overcommit: Some(0),
        },
        clock: ClockFacts {
            steps_back: 0,
            reading_ns: 30,
            source: Some("tsc".into()),
            unix_s: 1_800_000_000,
            is_synced: Some(true),
        },
        redis: None,
    }
}

/// The report on a good machine with one thing changed.
fn with(change: impl FnOnce(&mut Facts)) -> Report {
    let mut facts = good();
    change(&mut facts);
    judge(&facts)
}

fn finding<'a>(report: &'a Report, check: &str) -> &'a Finding {
    let mut findings = report.findings.iter();
    findings
        .find(|finding| finding.check == check)
        .unwrap_or_else(|| panic!("no {check} in {report:#?}"))
}

/// One finding with this verdict and these commands among its mends, in a report that is otherwise good.
fn only(report: &Report, check: &str, verdict: Verdict, commands: &[&str]) {
    let found = finding(report, check);
    assert_eq!(found.verdict, verdict, "{found:#?}");
    for command in commands {
        let mut mends = found.mend.iter();
        assert!(
            mends.any(|mend| mend.command.starts_with(command)),
            "no {command:?} in {found:#?}"
        );
    }
    for other in report.findings.iter().filter(|other| other.check != check) {
        assert_eq!(other.verdict, Verdict::Ok, "{other:#?}");
    }
    assert_eq!(report.exit_code(), u8::from(verdict == Verdict::Bad));
}

fn fits(report: &Report) -> (u64, &str) {
    let first = report.bounds.first().expect("a bound");
    (first.viewers, first.what.as_str())
}

#[test]
fn a_good_machine_has_nothing_to_mend() {
    let report = with(|_| {});
    for finding in &report.findings {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:#?}");
        assert!(finding.mend.is_empty(), "{finding:#?}");
    }
    // 4 shards, each 20,000 less 64 and two descriptors per shard.
    assert_eq!(fits(&report), (4 * 19_928, "the descriptor limit"));
}

#[test]
fn a_small_descriptor_limit() {
    let report = with(|facts| facts.descriptors.hard = Some(1024));
    let commands = [
        "ulimit -Hn 1048576; ulimit -n 1048576",
        "LimitNOFILE=1048576",
        "docker run --ulimit nofile=1048576:1048576",
        "echo '* - nofile 1048576' >> /etc/security/limits.d/90-danmaku.conf",
        "danmaku --shards 11   # where the limit cannot be raised: room for 10,318 viewers",
    ];
    only(&report, "descriptors", Verdict::Warn, &commands);
    assert_eq!(fits(&report).0, 4 * 952);
    let none = with(|facts| facts.descriptors.hard = Some(60));
    only(&none, "descriptors", Verdict::Bad, &commands[..4]);
    assert_eq!(fits(&none).0, 0);
}

#[test]
fn the_kernel_allows_no_larger_limit() {
    let report = with(|facts| {
        facts.descriptors.hard = Some(1024);
        facts.descriptors.nr_open = Some(65_536);
    });
    let commands = ["LimitNOFILE=65536", "sysctl -w fs.nr_open=1048576"];
    only(&report, "descriptors", Verdict::Warn, &commands);
}

#[test]
fn without_a_limit_a_shard_holds_a_million() {
    let report = with(|facts| {
        facts.descriptors.hard = None;
        facts.memory.available = Some(1 << 40);
        facts.network.tcp_mem = Some([1 << 30, 1 << 30, 1 << 30]);
    });
    assert_eq!(
        fits(&report),
        (4 * ((1 << 20) - 72), "the descriptor limit")
    );
}

#[test]
fn one_table_for_all_shards() {
    let refused = |facts: &mut Facts| {
        facts.descriptors.own_table = Err("Operation not permitted (os error 1)".into());
        facts.descriptors.hard = Some(1 << 20);
        facts.memory.available = Some(1 << 40);
        facts.network.tcp_mem = Some([1 << 30, 1 << 30, 1 << 30]);
    };
    let report = with(refused);
    let commands = ["SystemCallFilter=@system-service"];
    only(&report, "descriptor tables", Verdict::Warn, &commands);
    assert_eq!(fits(&report).0, 4 * ((1 << 18) - 72));
    let contained = with(|facts| {
        refused(facts);
        facts.in_container = true;
    });
    let commands = ["docker run --ulimit nofile=1048576:1048576 --security-opt"];
    only(&contained, "descriptor tables", Verdict::Warn, &commands);
    // Asked for, it is no finding.
    let asked = with(|facts| {
        refused(facts);
        facts.plan.fd_tables = FdTables::Shared;
    });
    assert!(
        asked
            .findings
            .iter()
            .all(|f| f.check != "descriptor tables")
    );
    assert_eq!(fits(&asked).0, 4 * ((1 << 18) - 72));
}

#[test]
fn all_files_of_the_machine() {
    let report = with(|facts| facts.descriptors.files_max = Some(52_000));
    let commands = [
        "sysctl -w fs.file-max=161424",
        "echo 'fs.file-max = 161424'",
    ];
    only(&report, "open files", Verdict::Warn, &commands);
    assert_eq!(fits(&report), (50_000, "fs.file-max"));
    let full = with(|facts| facts.descriptors.files_max = Some(2_100));
    only(&full, "open files", Verdict::Bad, &[]);
    assert_eq!(fits(&full).0, 100);
}

#[test]
fn memory_of_the_machine_or_of_the_group_whichever_is_less() {
    // 512 MiB free, less 16 and 4 x 8; four fifths of it at 5,000 bytes.
    let report = with(|facts| {
        facts.memory.cgroup = Some(Cgroup {
            limit: 1 << 30,
            used: 1 << 29,
        });
    });
    let viewers = ((1u64 << 29) - (48 << 20)) / 100 * 80 / 5000;
    assert_eq!(viewers, 77_846);
    let commands = [
        "DANMAKU_ADMISSION__CONNECTIONS_MAX=77846",
        "connections_max = 77846",
    ];
    only(&report, "memory", Verdict::Warn, &commands);
    assert_eq!(fits(&report), (viewers, "memory"));
    let found = &finding(&report, "memory").found;
    assert!(
        found.contains("512.0 MiB (left of the control group's 1.0 GiB)"),
        "{found}"
    );
    let wide = with(|facts| {
        facts.memory.cgroup = Some(Cgroup {
            limit: 1 << 40,
            used: 0,
        });
    });
    assert!(finding(&wide, "memory").found.contains("MemAvailable"));
}

#[test]
fn no_memory_to_speak_of() {
    let report = with(|facts| facts.memory.available = Some(50 << 20));
    let commands = ["MemoryMax=1G", "docker run --memory 1g"];
    only(&report, "memory", Verdict::Bad, &commands);
    assert_eq!(fits(&report), (335, "memory"));
    let none = with(|facts| facts.memory.available = Some(0));
    assert_eq!(fits(&none).0, 0);
}

#[test]
fn swap_and_strict_accounting_only_where_they_matter() {
    let report = with(|facts| facts.memory.swap = Some(1 << 30));
    only(
        &report,
        "swap",
        Verdict::Warn,
        &["sysctl -w vm.swappiness=1"],
    );
    let calm = with(|facts| {
        facts.memory.swap = Some(1 << 30);
        facts.memory.swappiness = Some(1);
    });
    assert!(calm.findings.iter().all(|f| f.check != "swap"));
    let strict = with(|facts| facts.memory.overcommit = Some(2));
    let commands = ["sysctl -w vm.overcommit_memory=0"];
    only(&strict, "overcommit", Verdict::Warn, &commands);
}

#[test]
fn queues_of_new_connections() {
    let report = with(|facts| facts.network.somaxconn = Some(128));
    let commands = [
        "sysctl -w net.core.somaxconn=4096",
        "echo 'net.core.somaxconn = 4096' >> /etc/sysctl.d/90-danmaku.conf",
        "docker run --sysctl net.core.somaxconn=4096",
    ];
    only(&report, "somaxconn", Verdict::Warn, &commands);
    let bare = with(|facts| facts.network.syncookies = Some(0));
    let commands = [
        "sysctl -w net.ipv4.tcp_syncookies=1",
        "sysctl -w net.ipv4.tcp_max_syn_backlog=4096",
    ];
    only(&bare, "tcp_max_syn_backlog", Verdict::Warn, &commands);
}

#[test]
fn local_ports_matter_to_a_proxy_beside_us() {
    let report = with(|facts| facts.plan.has_proxy_here = true);
    let commands = [
        "sysctl -w net.ipv4.ip_local_port_range=\"10000 65535\"",
        "split_clients",
    ];
    only(&report, "local ports", Verdict::Warn, &commands);
    let few = with(|facts| facts.network.port_range = Some((50_000, 50_999)));
    only(&few, "local ports", Verdict::Warn, &commands[..1]);
    assert!(finding(&few, "local ports").found.contains("1,000 ports"));
}

#[test]
fn a_listen_port_that_an_outgoing_connection_may_take() {
    let report = with(|facts| {
        facts.network.port_range = Some((1024, 65_535));
        facts.network.reserved_ports = vec![(8081, 8081), (9000, 9010)];
    });
    let commands = ["sysctl -w net.ipv4.ip_local_reserved_ports=8081,9000-9010,8080"];
    only(&report, "listen ports", Verdict::Warn, &commands);
    let kept = with(|facts| {
        facts.network.port_range = Some((1024, 65_535));
        facts.network.reserved_ports = vec![(8000, 8100)];
    });
    assert!(kept.findings.iter().all(|f| f.check != "listen ports"));
}

#[test]
fn connection_tracking_lets_in_what_is_left() {
    let report = with(|facts| facts.network.conntrack = Some((1_000, 65_536)));
    let commands = ["sysctl -w net.netfilter.nf_conntrack_max=159424"];
    only(&report, "conntrack", Verdict::Warn, &commands);
    assert_eq!(
        fits(&report),
        (64_536, "connection tracking (nf_conntrack_max)")
    );
    let full = with(|facts| facts.network.conntrack = Some((990_000, 1_000_000)));
    only(&full, "conntrack", Verdict::Bad, &[]);
    let wide = with(|facts| facts.network.conntrack = Some((10, 1_000_000)));
    assert_eq!(finding(&wide, "conntrack").verdict, Verdict::Ok);
}

#[test]
fn socket_memory() {
    let report = with(|facts| facts.network.tcp_mem = Some([1, 2_000, 4_000]));
    let commands = ["sysctl -w net.ipv4.tcp_mem=\"79712 119568 159424\""];
    only(&report, "tcp_mem", Verdict::Warn, &commands);
}

#[test]
fn more_shards_than_cores() {
    let report = with(|facts| facts.plan.shards = 8);
    only(&report, "shards", Verdict::Warn, &["danmaku --shards 0"]);
}

#[test]
fn a_promise_that_cannot_be_kept() {
    let report = with(|facts| facts.plan.connections_max = 1_000_000);
    let commands = [
        "DANMAKU_ADMISSION__CONNECTIONS_MAX=79712",
        "connections_max = 79712",
    ];
    only(&report, "admission", Verdict::Bad, &commands);
    let kept = with(|facts| facts.plan.connections_max = 500);
    assert_eq!(fits(&kept), (500, "admission.connections_max"));
    assert_eq!(finding(&kept, "admission").verdict, Verdict::Ok);
}

#[test]
fn mistakes_in_the_settings() {
    let said = "a.toml:1:1: x\n  found: y\n\n1 mistake in the settings";
    let report = with(|facts| facts.plan.mistakes = Some(said.into()));
    let commands = ["danmaku check-config"];
    only(&report, "settings", Verdict::Bad, &commands);
    let found = &finding(&report, "settings").found;
    assert_eq!(found, "1 mistake in the settings");
}

#[test]
fn clocks() {
    let report = with(|facts| facts.clock.steps_back = 1);
    let commands = ["cat /sys/devices", "clocksource=tsc"];
    only(&report, "monotonic clock", Verdict::Bad, &commands);
    let slow = with(|facts| facts.clock.reading_ns = 900);
    only(&slow, "monotonic clock", Verdict::Warn, &commands);
    for wrong in [0, 1_000_000_000, 5_000_000_000] {
        let report = with(|facts| facts.clock.unix_s = wrong);
        let commands = ["timedatectl set-ntp true", "apt-get install -y chrony"];
        only(&report, "wall clock", Verdict::Bad, &commands);
    }
    let loose = with(|facts| facts.clock.is_synced = Some(false));
    only(
        &loose,
        "wall clock",
        Verdict::Warn,
        &["timedatectl set-ntp true"],
    );
    let unseen = with(|facts| facts.clock.is_synced = None);
    let commands = ["timedatectl show -p NTPSynchronized"];
    only(&unseen, "wall clock", Verdict::Unknown, &commands);
}

#[test]
fn elsewhere_than_on_linux_it_says_what_it_cannot_know() {
    let report = with(|facts| {
        facts.is_linux = false;
        facts.descriptors.own_table = Err("unsupported".into());
        facts.descriptors.nr_open = None;
        facts.descriptors.files_open = None;
        facts.descriptors.files_max = None;
        facts.network = Network::default();
        facts.memory = Memory::default();
        facts.clock.source = None;
        facts.clock.is_synced = None;
    });
    for check in [
        "descriptor tables",
        "memory",
        "somaxconn",
        "tcp_max_syn_backlog",
        "local ports",
        "conntrack",
        "tcp_mem",
        "wall clock",
    ] {
        let finding = finding(&report, check);
        assert_eq!(finding.verdict, Verdict::Unknown, "{finding:#?}");
    }
    assert_eq!(report.exit_code(), 0);
    assert_eq!(fits(&report).0, 4 * (5_000 - 72));
}

fn redis(result: Result<RedisAnswers, RedisFault>) -> Report {
    with(|facts| {
        facts.redis = Some(Redis {
            address: "cache:6379".into(),
            result,
        });
    })
}

#[test]
fn a_redis_that_answers() {
    let answers = RedisAnswers {
        median_us: 400,
        max_us: 900,
        version: Some("7.0.15".into()),
        memory_max: Some(1 << 30),
        policy: Some("noeviction".into()),
    };
    let report = redis(Ok(answers.clone()));
    assert_eq!(report.count(Verdict::Ok), report.findings.len());
    assert!(
        finding(&report, "redis")
            .found
            .contains("0.40 ms (median of 20), 0.90 ms")
    );
    let far = RedisAnswers {
        median_us: 9_000,
        ..answers.clone()
    };
    only(
        &redis(Ok(far)),
        "redis",
        Verdict::Warn,
        &["run Redis in the same zone"],
    );
    let stalls = RedisAnswers {
        max_us: 90_000,
        ..answers.clone()
    };
    let commands = ["redis-cli -h cache slowlog get 5; redis-cli -h cache latency doctor"];
    only(&redis(Ok(stalls)), "redis", Verdict::Warn, &commands);
    let old = RedisAnswers {
        version: Some("6.2.1".into()),
        ..answers.clone()
    };
    only(
        &redis(Ok(old)),
        "redis version",
        Verdict::Warn,
        &["apt-get install"],
    );
    let evicts = RedisAnswers {
        policy: Some("allkeys-lru".into()),
        ..answers.clone()
    };
    let commands = [
        "redis-cli CONFIG SET maxmemory-policy noeviction",
        "maxmemory-policy noeviction",
    ];
    only(
        &redis(Ok(evicts.clone())),
        "redis eviction",
        Verdict::Warn,
        &commands,
    );
    let boundless = RedisAnswers {
        memory_max: Some(0),
        ..evicts
    };
    let report = redis(Ok(boundless));
    assert_eq!(finding(&report, "redis eviction").verdict, Verdict::Ok);
    // A user without the right to INFO.
    let silent = RedisAnswers {
        version: None,
        memory_max: None,
        policy: None,
        ..answers
    };
    assert_eq!(redis(Ok(silent)).count(Verdict::Warn), 0);
}

#[test]
fn a_redis_that_does_not() {
    let url = "danmaku doctor --redis redis://";
    let faults = [
        (RedisFault::Url("x".into()), "the URL is none", url),
        (
            RedisFault::Tls("x".into()),
            "a certificate that is not trusted",
            "SSL_CERT_FILE=",
        ),
        (
            RedisFault::Refused,
            "refuses the connection",
            "systemctl start redis-server",
        ),
        (
            RedisFault::Unreachable("x".into()),
            "cannot be reached",
            "getent hosts cache",
        ),
        (
            RedisFault::Timeout,
            "within 2 s",
            "redis-cli -h cache ping; redis-cli -h cache slowlog",
        ),
        (RedisFault::Auth("x".into()), "does not let us in", url),
        (
            RedisFault::Other("x".into()),
            "answered: x",
            "redis-cli -h cache info",
        ),
    ];
    for (fault, said, command) in faults {
        let report = redis(Err(fault));
        only(&report, "redis", Verdict::Bad, &[command]);
        let found = &finding(&report, "redis").found;
        assert!(found.contains(said), "{found}");
    }
}
