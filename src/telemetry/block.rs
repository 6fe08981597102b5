//! One shard's metric cells.
//!
//! Written by its shard alone, read by whichever thread renders the page. A write is one relaxed load, one addition and
//! one relaxed store on a line no other shard writes: plain moves on x86-64 and AArch64, a nanosecond or two, where the
//! locked cycle of `fetch_add` costs several. A histogram costs 5 ns. It must never have two writers: their additions
//! would overwrite each other. It never locks, allocates after its making, or fails. About 2 KiB per shard.
//!
//! A reader sees each cell whole (64 bits) but the cells of one moment not together; every count it shows was true
//! within the last turn.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::refusal::Code;

use super::table::{
    Bucket, CLOSE_CODES, Counter, Dropped, Gauge, HTTP_STATUSES, Hist, Labelled, Shed,
};

/// One shard's cells. Aligned to two cache lines, because adjacent-line prefetch pairs them.
#[repr(align(128))]
#[derive(Debug)]
pub struct Block {
    counters: [Cell; Counter::ALL.len()],
    gauges: [Cell; Gauge::ALL.len()],
    hists: [HistCells; Hist::ALL.len()],
    refusals: [Cell; Code::ALL.len()],
    lines_refused: [Cell; Code::ALL.len()],
    // The last cell of these two is `other`.
    closes: [Cell; CLOSE_CODES.len() + 1],
    statuses: [Cell; HTTP_STATUSES.len() + 1],
    dropped: [Cell; Dropped::ALL.len()],
    shed: [Cell; Shed::ALL.len()],
    limited: [Cell; Bucket::ALL.len()],
}

/// What a histogram held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistValues {
    /// Observations per bucket, not cumulative; past the finite bounds comes the unbounded one, then zeros.
    pub buckets: [u64; Hist::BOUNDS_MAX + 1],
    /// Sum of all observations in nanoseconds; may run one observation ahead of or behind the buckets.
    pub sum_ns: u64,
}

impl Block {
    /// A block of zeros, for one shard.
    pub fn new() -> Block {
        Block {
            counters: zeros(),
            gauges: zeros(),
            hists: array::from_fn(|_| HistCells {
                buckets: zeros(),
                sum_ns: Cell::default(),
            }),
            refusals: zeros(),
            lines_refused: zeros(),
            closes: zeros(),
            statuses: zeros(),
            dropped: zeros(),
            shed: zeros(),
            limited: zeros(),
        }
    }

    /// Adds `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        self.counters[counter as usize].add(n);
    }

    /// Adds one.
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Sets a gauge; one in seconds takes nanoseconds.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].0.store(value, Relaxed);
    }

    /// Moves a gauge that is a sum.
    pub fn shift(&self, gauge: Gauge, change: i64) {
        self.set(gauge, self.gauge(gauge).saturating_add_signed(change));
    }

    /// Notes a duration. At most 16 comparisons.
    pub fn observe(&self, hist: Hist, ns: u64) {
        let cells = &self.hists[hist as usize];
        // Never past the array: `BOUNDS_MAX` finite buckets and the unbounded one.
        let bucket = hist.bounds_ns().partition_point(|&bound| bound < ns);
        cells.buckets[bucket].add(1);
        cells.sum_ns.add(ns);
    }

    /// A connection or request was refused.
    pub fn refused(&self, code: Code) {
        self.refusals[code as usize].add(1);
    }

    /// A line or event was refused to its author.
    pub fn line_refused(&self, code: Code) {
        self.lines_refused[code as usize].add(1);
    }

    /// Flood control refused a line for want of this bucket's tokens.
    pub fn rate_limited(&self, bucket: Bucket) {
        self.limited[bucket as usize].add(1);
    }

    /// `n` lines did not reach a viewer.
    pub fn dropped(&self, why: Dropped, n: u64) {
        self.dropped[why as usize].add(n);
    }

    /// So much was given up for the node's sake.
    pub fn shed(&self, what: Shed, n: u64) {
        self.shed[what as usize].add(n);
    }

    /// A viewer is gone; `code` 1006 if no close frame was exchanged. Unlisted codes count as `other`.
    pub fn closed(&self, code: u16) {
        self.closes[cell_of(&CLOSE_CODES, code)].add(1);
    }

    /// A request was answered with this status. Unlisted ones count as `other`.
    pub fn http_status(&self, status: u16) {
        self.statuses[cell_of(&HTTP_STATUSES, status)].add(1);
    }

    /// Reads a counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].read()
    }

    /// Reads a gauge.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].read()
    }

    /// Reads a cell of a labelled counter; the cell's label is [`Labels::value`](super::table::Labels::value). `None` past the last.
    pub fn labelled(&self, labelled: Labelled, cell: usize) -> Option<u64> {
        let cells: &[Cell] = match labelled {
            Labelled::RefusalsTotal => &self.refusals,
            Labelled::LinesRefusedTotal => &self.lines_refused,
            Labelled::ClosesTotal => &self.closes,
            Labelled::HttpRequestsTotal => &self.statuses,
            Labelled::DroppedTotal => &self.dropped,
            Labelled::ShedTotal => &self.shed,
            Labelled::RateLimitedTotal => &self.limited,
        };
        cells.get(cell).map(Cell::read)
    }

    /// Reads a histogram.
    pub fn hist(&self, hist: Hist) -> HistValues {
        let cells = &self.hists[hist as usize];
        HistValues {
            buckets: array::from_fn(|bucket| cells.buckets[bucket].read()),
            sum_ns: cells.sum_ns.read(),
        }
    }
}

impl Default for Block {
    fn default() -> Block {
        Block::new()
    }
}

/// A gauge of the whole node: the sum over its shards.
pub fn gauge_sum(blocks: &[Arc<Block>], gauge: Gauge) -> u64 {
    sum(blocks.iter().map(|block| block.gauge(gauge)))
}

/// A counter of the whole node: the sum over its shards.
pub fn counter_sum(blocks: &[Arc<Block>], counter: Counter) -> u64 {
    sum(blocks.iter().map(|block| block.counter(counter)))
}

/// A cell of a labelled counter of the whole node; 0 where there is no such cell.
pub fn labelled_sum(blocks: &[Arc<Block>], labelled: Labelled, cell: usize) -> u64 {
    sum(blocks
        .iter()
        .filter_map(|block| block.labelled(labelled, cell)))
}

/// A histogram of the whole node.
pub fn hist_sum(blocks: &[Arc<Block>], hist: Hist) -> HistValues {
    let mut total = HistValues {
        buckets: [0; Hist::BOUNDS_MAX + 1],
        sum_ns: 0,
    };
    for values in blocks.iter().map(|block| block.hist(hist)) {
        for (into, from) in total.buckets.iter_mut().zip(values.buckets) {
            *into = into.wrapping_add(from);
        }
        total.sum_ns = total.sum_ns.wrapping_add(values.sum_ns);
    }
    total
}

/// A number with one writer.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
struct HistCells {
    buckets: [Cell; Hist::BOUNDS_MAX + 1],
    sum_ns: Cell,
}

fn zeros<const N: usize>() -> [Cell; N] {
    array::from_fn(|_| Cell::default())
}

/// The cell of a listed number, or the one behind the list for `other`.
fn cell_of(listed: &[u16], number: u16) -> usize {
    listed
        .iter()
        .position(|&one| one == number)
        .unwrap_or(listed.len())
}

/// Wraps like the cells do, so that a debug build never stops over a metric.
fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::wrapping_add)
}

// No two shards' blocks share a line, wherever they are allocated.
const _: () = assert!(align_of::<Block>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_what_was_written() {
        let block = Block::new();
        block.inc(Counter::LinesTotal);
        block.add(Counter::LinesTotal, 4);
        block.set(Gauge::Connections, 7);
        block.set(Gauge::Connections, 3);
        block.closed(4408);
        block.closed(4999);
        block.http_status(200);
        block.http_status(299);
        block.dropped(Dropped::Slow, 12);
        block.refused(Code::ConnectionsFull);
        block.line_refused(Code::RateLimited);
        block.rate_limited(Bucket::Room);
        assert_eq!(block.counter(Counter::LinesTotal), 5);
        assert_eq!(block.counter(Counter::EventsTotal), 0);
        assert_eq!(block.gauge(Gauge::Connections), 3);
        let at = |labelled: Labelled, value: &str| {
            let labels = labelled.family().labels;
            let cell = (0..200).find(|&cell| labels.value(cell).as_deref() == Some(value));
            block.labelled(labelled, cell.unwrap()).unwrap()
        };
        assert_eq!(at(Labelled::ClosesTotal, "4408"), 1);
        assert_eq!(at(Labelled::ClosesTotal, "other"), 1);
        assert_eq!(at(Labelled::ClosesTotal, "1000"), 0);
        assert_eq!(at(Labelled::HttpRequestsTotal, "200"), 1);
        assert_eq!(at(Labelled::HttpRequestsTotal, "other"), 1);
        assert_eq!(at(Labelled::DroppedTotal, "slow"), 12);
        assert_eq!(at(Labelled::RefusalsTotal, "connections_full"), 1);
        assert_eq!(at(Labelled::LinesRefusedTotal, "rate_limited"), 1);
        assert_eq!(at(Labelled::RateLimitedTotal, "room"), 1);
    }

    #[test]
    fn a_bound_is_inclusive_and_the_last_bucket_open() {
        let block = Block::new();
        let bounds = Hist::FanoutSeconds.bounds_ns();
        block.observe(Hist::FanoutSeconds, 0);
        block.observe(Hist::FanoutSeconds, bounds[0]);
        block.observe(Hist::FanoutSeconds, bounds[0] + 1);
        block.observe(Hist::FanoutSeconds, u64::MAX);
        let values = block.hist(Hist::FanoutSeconds);
        assert_eq!(values.buckets[..2], [2, 1]);
        assert_eq!(values.buckets[bounds.len()], 1);
        assert_eq!(values.buckets.iter().sum::<u64>(), 4);
    }

    #[test]
    fn every_labelled_family_has_one_cell_per_label() {
        let block = Block::new();
        for labelled in Labelled::ALL {
            let labels = labelled.family().labels;
            for cell in 0..200 {
                let both = (
                    labels.value(cell).is_some(),
                    block.labelled(labelled, cell).is_some(),
                );
                assert!(both.0 == both.1, "{labelled:?} cell {cell}: {both:?}");
            }
        }
    }

    #[test]
    fn a_reader_on_another_thread_sees_every_addition() {
        let block = Arc::new(Block::new());
        let shard = Arc::clone(&block);
        let writer = std::thread::spawn(move || {
            for _ in 0..100_000 {
                shard.inc(Counter::WalkVisitsTotal);
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let now = block.counter(Counter::WalkVisitsTotal);
            assert!(now >= last, "a counter went back from {last} to {now}");
            last = now;
        }
        writer.join().unwrap();
        assert_eq!(block.counter(Counter::WalkVisitsTotal), 100_000);
    }

    #[test]
    fn blocks_add_up() {
        let blocks = [Arc::new(Block::new()), Arc::new(Block::new())];
        blocks[0].set(Gauge::Members, 2);
        blocks[1].set(Gauge::Members, 3);
        blocks[0].observe(Hist::TurnSeconds, 10);
        blocks[1].observe(Hist::TurnSeconds, 20);
        blocks[1].dropped(Dropped::Slow, 9);
        assert_eq!(gauge_sum(&blocks, Gauge::Members), 5);
        assert_eq!(hist_sum(&blocks, Hist::TurnSeconds).buckets[0], 2);
        assert_eq!(hist_sum(&blocks, Hist::TurnSeconds).sum_ns, 30);
        assert_eq!(labelled_sum(&blocks, Labelled::DroppedTotal, 0), 9);
        assert_eq!(counter_sum(&blocks, Counter::LinesTotal), 0);
    }
}
