//! The metrics page under Prometheus' own linter.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use danmaku_gateway::telemetry::{
    Block, Bucket, Counter, Dropped, Gauge, Hist, NodeStats, ProcessStats, View, render,
};

fn page() -> String {
    let blocks: Vec<_> = (0..2).map(|_| Arc::new(Block::new())).collect();
    for block in &blocks {
        block.add(Counter::DeliveriesTotal, u64::MAX / 4);
        block.set(Gauge::TurnLagSeconds, 1_234_567);
        block.observe(Hist::FanoutSeconds, 3_000_000);
        block.dropped(Dropped::Slow, 3);
        block.rate_limited(Bucket::User);
        block.closed(4413);
        block.http_status(101);
    }
    render(&View {
        blocks: &blocks,
        node: NodeStats {
            connection_permits_in_use: 1,
            connection_permits_max: 15_000,
            handshake_permits_in_use: 0,
            handshake_permits_max: 1024,
            fd_tables: 2,
            ready: true,
            draining: false,
            start_unix_ms: 1_795_377_714_250,
            log_lines_dropped: 0,
            redis: Default::default(),
            stream: Default::default(),
            kafka: Default::default(),
            version: env!("CARGO_PKG_VERSION"),
            revision: "with \"quotes\", a \\ and\na line feed",
        },
        process: ProcessStats::read(),
    })
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let page = page();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool cannot be run ({error}): install the Debian package `prometheus`")
        });
    promtool
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(page.as_bytes())
        .expect("promtool reads the page");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Its complaints about style leave exit code 3; a page it cannot parse, 1.
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{}: {said}\n{page}",
        output.status
    );
}
