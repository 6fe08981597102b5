//! Bounds that are not settings: each with the sum that justifies it, related by assertions that fail to compile.
//!
//! Constants only. What an operator may want to change is in the config; what stands here keeps a turn short and memory
//! bounded whatever the settings say.

use super::rate::Rate;

/// Messages a shard's mailbox holds. At 136 bytes each 2.2 MB, which are there from the start; a turn takes [`MESSAGES_PER_TURN`].
pub const MAILBOX_MESSAGES: usize = 16_384;
/// Messages taken from the mailbox in one turn: about a millisecond of numbering.
pub const MESSAGES_PER_TURN: usize = 1024;
/// With more than this waiting for another shard, its lines are refused (`busy`); what may not be refused still waits.
pub const BACKLOG_MESSAGES_SOFT: usize = 1024;
/// Connections accepted in one turn: at 20 us each 2.5 ms.
pub const ACCEPTS_PER_TURN: usize = 128;
/// Connections let go of in one turn: at 15 us each, with their seats, 2 ms. When a network goes, thousands are reset at once.
pub const CLOSES_PER_TURN: usize = 128;
/// Members told an online count per second on one shard, where nothing else is being sent to them: at 6 us each a thirtieth of a core.
pub const ONLINE_VISITS_PER_S: u32 = 5_000;
/// Bytes waiting for viewers one by one, on one shard, at which that is too much: a thousand full outboxes.
pub const OUTBOXES_BYTES: u64 = 64 << 20;
/// Connections looked at each time viewers are to be given up.
pub const GIVE_UP_VISITS: usize = 2048;
/// When those given up may come back: the node needs seconds, and they should not come together.
pub const OVERLOADED_RETRY_MS: u32 = 3000;
/// Events taken from the poller at once.
pub const EVENTS_PER_POLL: usize = 1024;
/// A shard's one read buffer: a whole HTTP request of default size fits.
pub const READ_SCRATCH_BYTES: usize = 64 * 1024;
/// Bytes read from one connection in one turn: a few hundred messages, so that one client cannot hold up the rest.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Members visited by the walk in one turn: at 6 us each 3 ms.
pub const VISITS_PER_TURN: usize = 512;
/// Connections looked at by a broadcast in one turn: as the walk.
pub const SWEEP_VISITS_PER_TURN: usize = 512;
/// Broadcasts under way on a shard; more are refused.
pub const BROADCASTS_MAX: usize = 256;
/// Timers fired in one turn.
pub const TIMERS_PER_TURN: usize = 1024;
/// The wheel's tick. Deadlines are seconds; a tick later is late enough to be one sweep and early enough to be on time.
pub const WHEEL_TICK_MS: u64 = 50;
/// Where a shard hears nothing but heartbeats, those that come within one such step of the clock are taken together.
pub const LULL_STEP_MS: u64 = 10;
/// How long nothing else may have been asked of it before: who speaks soon after another never waits for a step.
pub const LULL_AFTER_MS: u64 = 1000;
/// Descriptors of a shard that no viewer gets: two listeners, poller, bell, the process's own, scrapes, refusals.
pub const DESCRIPTOR_RESERVE: usize = 64;
/// Room for fewer viewers than this is a descriptor limit nobody set on purpose (1,024 is the usual default): worth a word.
pub const FEW_VIEWERS: usize = 10_000;
/// Address space it takes to start without a shard: the program, its libraries, the log's and the signals' threads with their stacks.
pub const ADDRESS_SPACE_BYTES: u64 = 48 << 20;
/// And for each shard: mailbox, scratch, stack, and what the allocator sets apart for a thread. With 20 MiB some of 32 shards did not start.
pub const ADDRESS_SPACE_BYTES_PER_SHARD: u64 = 24 << 20;
/// Connections the kernel holds before they are accepted; it caps this at `somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Questions to home shards one connection may have under way.
pub const QUESTIONS_PER_CONNECTION_MAX: usize = 32;
/// Joins, leaves and token renewals of one connection: enough to enter every room at once and go on changing.
pub const COMMANDS: Rate = Rate {
    per_s: 20,
    burst: 64,
};
/// Bad or too fast messages that are answered before the connection is closed with 4429.
pub const STRIKES_MAX: u32 = 20;
/// Refused clients that are logged, per shard.
pub const REFUSALS_LOGGED: Rate = Rate {
    per_s: 2,
    burst: 10,
};
/// Strikes forgotten per second.
pub const STRIKES_FORGIVEN_PER_S: u32 = 1;
/// How long an idle HTTP connection is kept.
pub const KEEP_ALIVE_IDLE_MS: u64 = 60_000;
/// How long an HTTP request waits for home shards before it is answered 504.
pub const EXCHANGE_DEADLINE_MS: u64 = 5_000;
/// Connections that look at one room's figures.
pub const WATCHERS_PER_ROOM_MAX: usize = 64;
/// Home rooms of one shard. At under 2 KiB for a room that was never spoken in, 2 GB when an attacker opens them all;
/// such a room is forgotten as soon as it is empty.
pub const HOME_ROOMS_MAX: usize = 1 << 20;
/// Home rooms looked at per second for being forgettable: a million in about two minutes.
pub const ROOMS_SWEPT_PER_SECOND: usize = 8192;

const _: () = assert!(WHEEL_TICK_MS.is_multiple_of(LULL_STEP_MS));
const _: () = assert!(MESSAGES_PER_TURN * 16 <= MAILBOX_MESSAGES);
const _: () = assert!(BACKLOG_MESSAGES_SOFT < MAILBOX_MESSAGES);
const _: () = assert!(READ_BYTES_PER_TURN <= READ_SCRATCH_BYTES);
const _: () = assert!(QUESTIONS_PER_CONNECTION_MAX <= u16::MAX as usize);
const _: () = assert!(COMMANDS.burst as usize >= QUESTIONS_PER_CONNECTION_MAX);
