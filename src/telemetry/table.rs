//! The one table of metrics: name, kind, unit, labels, group, help and when to look, each declared once.
//!
//! Static data, read by any thread. The enums that shards write through and the page that Prometheus reads are both made
//! from these rows, so no metric can be written under a name that is not here. It holds no values and never changes
//! while the process runs. `docs/METRICS.md` repeats it for people; a test keeps the two equal.

use std::borrow::Cow;

use crate::base::refusal::Code;

use Kind::{Counter as C, Gauge as G, Histogram as H};
use Unit::{Bytes, Of, Seconds};

/// What Prometheus calls the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shown in seconds; kept in whole nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A number of these things.
    Of(&'static str),
}

impl Unit {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Of(things) => things,
        }
    }
}

/// Which series a family has. Every set of values is fixed, so outside data can never make a new series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// One series: the sum over shards, or a value of the node.
    None,
    /// One series per shard.
    Shard,
    /// `reason`: every [`Code`].
    Refusal,
    /// `reason`: every [`Dropped`].
    Dropped,
    /// `what`: every [`Shed`].
    Shed,
    /// `code`: [`CLOSE_CODES`] and `other`.
    Close,
    /// `status`: [`HTTP_STATUSES`] and `other`.
    Status,
    /// `scope`: every [`Bucket`].
    Bucket,
    /// `version` and `revision`, one series.
    Build,
}

impl Labels {
    /// Label names, in the order they are written.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Labels::None => &[],
            Labels::Shard => &["shard"],
            Labels::Refusal | Labels::Dropped => &["reason"],
            Labels::Shed => &["what"],
            Labels::Close => &["code"],
            Labels::Status => &["status"],
            Labels::Bucket => &["scope"],
            Labels::Build => &["version", "revision"],
        }
    }

    /// The label's value at a cell of a labelled counter; `None` past the last, and for sets that are not fixed cells.
    pub fn value(self, cell: usize) -> Option<Cow<'static, str>> {
        let number = |codes: &[u16]| match codes.get(cell) {
            Some(code) => Some(Cow::Owned(code.to_string())),
            None => (cell == codes.len()).then_some(Cow::Borrowed("other")),
        };
        match self {
            Labels::Refusal => Code::ALL.get(cell).map(|code| code.as_str().into()),
            Labels::Dropped => Dropped::ALL.get(cell).map(|why| why.as_str().into()),
            Labels::Shed => Shed::ALL.get(cell).map(|what| what.as_str().into()),
            Labels::Bucket => Bucket::ALL.get(cell).map(|scope| scope.as_str().into()),
            Labels::Close => number(&CLOSE_CODES),
            Labels::Status => number(&HTTP_STATUSES),
            Labels::None | Labels::Shard | Labels::Build => None,
        }
    }
}

/// The concern a family belongs to. Documentation and the dashboard show families by it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Who comes, stays and goes, and what is left for more.
    Connections,
    /// Rooms, their members and what is said in them.
    Rooms,
    /// What leaves for viewers, how fast, and what does not.
    FanOut,
    /// Who was turned away, and why.
    Refusals,
    /// Plain HTTP.
    Http,
    /// Whether one reactor is behind the others.
    Shards,
    /// The Redis that joins nodes.
    Redis,
    /// The process and the node as a whole.
    Process,
}

impl Group {
    /// Every group, in the order people see them.
    pub const ALL: [Group; 8] = [
        Group::Connections,
        Group::Rooms,
        Group::FanOut,
        Group::Refusals,
        Group::Http,
        Group::Shards,
        Group::Redis,
        Group::Process,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Connections => "Connections",
            Group::Rooms => "Rooms and lines",
            Group::FanOut => "Fan-out",
            Group::Refusals => "Refusals",
            Group::Http => "HTTP",
            Group::Shards => "Shards",
            Group::Redis => "Redis",
            Group::Process => "Node and process",
        }
    }
}

/// One row: a family of series under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name, in Prometheus' spelling: base unit last, counters end in `_total`.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// Its series.
    pub labels: Labels,
    /// The concern it belongs to: a section of the documentation, a row of the dashboard.
    pub group: Group,
    /// What it means: one sentence, on the page and in the documentation.
    pub help: &'static str,
    /// When a person looks at it; documentation only.
    pub look: &'static str,
}

macro_rules! families {
    ($(#[$doc:meta])* $enum:ident {
        $($variant:ident = $name:literal, $kind:expr, $unit:expr, $labels:ident, $group:ident, $help:literal, $look:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $(#[doc = $help] $variant,)* }

        impl $enum {
            /// Every one, in table order.
            pub const ALL: [$enum; $enum::FAMILIES.len()] = [$($enum::$variant,)*];
            const FAMILIES: &'static [Family] = &[$(Family {
                name: $name, kind: $kind, unit: $unit, labels: Labels::$labels, group: Group::$group,
                help: $help, look: $look,
            },)*];

            /// Its row.
            pub fn family(self) -> &'static Family { &Self::FAMILIES[self as usize] }
        }
    };
}

families! {
    /// Counted by shards, shown as the sum over them.
    Counter {
        AcceptsTotal = "danmaku_accepts_total", C, Of("connections"), None, Connections,
            "TCP connections taken from a listener.", "Against accepted viewers: how many knock and are not let in.";
        ConnectionsAcceptedTotal = "danmaku_connections_accepted_total", C, Of("connections"), None, Connections,
            "Viewers upgraded to WebSocket.", "Its rate is the connect rate; a storm after a restart shows here.";
        HeartbeatPingsTotal = "danmaku_heartbeat_pings_total", C, Of("frames"), None, Connections,
            "WebSocket pings sent to viewers silent for one interval.", "High against connections: clients send no heartbeat of their own.";
        JoinsTotal = "danmaku_joins_total", C, Of("members"), None, Rooms,
            "Rooms joined, by URL or by message.", "Churn; joins minus leaves is danmaku_members.";
        LeavesTotal = "danmaku_leaves_total", C, Of("members"), None, Rooms,
            "Rooms left, closed connections included.", "Churn.";
        LinesTotal = "danmaku_lines_total", C, Of("lines"), None, Rooms,
            "Lines numbered by their room's home shard.", "Its rate is what comes in; deliveries divided by it is the fan-out.";
        EventsTotal = "danmaku_events_total", C, Of("events"), None, Rooms,
            "Events (gifts, notices) numbered by their room's home shard.", "As lines.";
        ApiPushesTotal = "danmaku_api_pushes_total", C, Of("messages"), None, Rooms,
            "Lines, events, user pushes and broadcasts taken over HTTP.", "Whether the back end reaches this node.";
        DeliveriesTotal = "danmaku_deliveries_total", C, Of("lines"), None, FanOut,
            "Lines handed to viewers' sockets, once per viewer.", "The work the node does; its rate is the capacity figure.";
        SlowViewersTotal = "danmaku_slow_viewers_total", C, Of("times"), None, FanOut,
            "Times a viewer fell off the room log because its socket stayed full.", "Rising with dropped{reason=\"slow\"}: few viewers often, or many once.";
        WalkVisitsTotal = "danmaku_walk_visits_total", C, Of("members"), None, FanOut,
            "Members visited by fan-out walks, those skipped as full or up to date included.", "Deliveries per visit is how well lines are gathered.";
        SendCallsTotal = "danmaku_send_calls_total", C, Of("calls"), None, FanOut,
            "System calls that wrote to viewers' sockets.", "Deliveries per call is the lever on CPU.";
        SendBlockedTotal = "danmaku_send_blocked_total", C, Of("calls"), None, FanOut,
            "Of those, the ones that found the socket full or took a part only.", "Networks or viewers too slow for the rooms they watch.";
        DeflatedMessagesTotal = "danmaku_deflated_messages_total", C, Of("messages"), None, FanOut,
            "Messages for rooms that were compressed, once for the node and not once per viewer.", "0: nobody agreed upon compression, or nothing was large enough to pay.";
        DeflateBytesInTotal = "danmaku_deflate_bytes_in_total", C, Bytes, None, FanOut,
            "Payload of those messages before.", "Divided into danmaku_deflate_bytes_out_total: what is left of a byte.";
        DeflateBytesOutTotal = "danmaku_deflate_bytes_out_total", C, Bytes, None, FanOut,
            "Payload of those messages after.", "See danmaku_deflate_bytes_in_total.";
        InflatedMessagesTotal = "danmaku_inflated_messages_total", C, Of("messages"), None, FanOut,
            "Messages from viewers that came compressed.", "Each costs more than a plain one; few clients compress what is this small.";
        FramesInTotal = "danmaku_frames_in_total", C, Of("frames"), None, FanOut,
            "WebSocket messages and control frames received; the fragments of a message count once.", "Client chatter.";
        FramesOutTotal = "danmaku_frames_out_total", C, Of("frames"), None, FanOut,
            "WebSocket frames sent, control frames included.", "Lines per frame for batch viewers.";
        BytesInTotal = "danmaku_bytes_in_total", C, Bytes, None, FanOut,
            "Bytes read from all client sockets.", "Bandwidth.";
        BytesOutTotal = "danmaku_bytes_out_total", C, Bytes, None, FanOut,
            "Bytes written to all client sockets.", "Bandwidth: the wall most nodes meet first.";
        LullsTotal = "danmaku_lulls_total", C, Of("waits"), None, Shards,
            "Times a shard that hears nothing but heartbeats waited for the clock's next step of 10 ms, to take several at once.", "Grows while viewers are silent and many; not at all while anybody talks.";
        MailboxFullTotal = "danmaku_mailbox_full_total", C, Of("messages"), None, Shards,
            "Messages between shards that found the mailbox full: refused to their author or kept in the backlog.", "Any: a shard is behind; see turn lag.";
        ListenerPausesTotal = "danmaku_listener_pauses_total", C, Of("times"), None, Connections,
            "Times a listener was paused because the process was out of descriptors or memory.", "Any: raise the descriptor limit; `danmaku doctor` shows it.";
        DrainClosedTotal = "danmaku_drain_closed_total", C, Of("connections"), None, Connections,
            "Viewers closed by a drain.", "Progress of a drain.";
    }
}

families! {
    /// Set by shards: the sum over them, or one series each where the labels say `Shard`. Seconds are set in nanoseconds.
    Gauge {
        Connections = "danmaku_connections", G, Of("connections"), None, Connections,
            "Viewers connected now.", "First. Also against danmaku_connection_permits_max.";
        HttpConnections = "danmaku_http_connections", G, Of("connections"), None, Http,
            "Connections that speak HTTP now: not yet upgraded, back ends, scrapers.", "Far above handshakes in flight: clients hold keep-alive connections.";
        Rooms = "danmaku_rooms", G, Of("rooms"), None, Rooms,
            "Rooms alive now, each counted at its home shard.", "Growth with no viewers: rooms.idle_after is long.";
        Members = "danmaku_members", G, Of("members"), None, Rooms,
            "Room memberships now: a viewer in three rooms counts three.", "Members per room is the fan-out to expect.";
        OutboxBytes = "danmaku_outbox_bytes", G, Bytes, None, FanOut,
            "Control messages and frame remainders waiting for viewers.", "Memory; rising: many viewers are stuck.";
        LogBytes = "danmaku_log_bytes", G, Bytes, None, Rooms,
            "Sealed lines kept in room logs and histories.", "Memory; bounded by rooms.log_bytes_max.";
        BacklogMessages = "danmaku_backlog_messages", G, Of("messages"), None, Shards,
            "Messages waiting for room in another shard's mailbox.", "Above 0 for seconds: that shard is overloaded.";
        MailboxMessages = "danmaku_mailbox_messages", G, Of("messages"), Shard, Shards,
            "Messages waiting in a shard's mailbox at its last turn.", "Which shard is behind.";
        TurnLagSeconds = "danmaku_turn_lag_seconds", G, Seconds, Shard, Shards,
            "How late a shard is: the length of its last turn, which whatever arrived meanwhile had to wait.", "Above 0.1: shed load or add shards.";
        OverloadLevel = "danmaku_overload_level", G, Of("level"), Shard, Shards,
            "What a shard gives up: 0 nothing, 1 online counts, 2 a part of the crowd's lines, 3 new anonymous viewers, 4 pushed lines, 5 viewers that take nothing, 6 guests in no room.", "Above 0: the node has more than it can carry; 3 and more: /readyz says so.";
        OpenFds = "danmaku_open_fds", G, Of("descriptors"), Shard, Shards,
            "Descriptors a shard holds: sockets, listeners, poller and those inherited.", "With a table per shard each one has the whole limit for itself; see OPERATIONS.";
    }
}

families! {
    /// Counted by shards in cells of a fixed label set, shown as the sum over shards.
    Labelled {
        RefusalsTotal = "danmaku_refusals_total", C, Of("requests"), Refusal, Refusals,
            "Connections and requests refused, by the code the client got.", "By reason: connections_full and accept_rate are capacity, token_* are clients.";
        ClosesTotal = "danmaku_closes_total", C, Of("connections"), Close, Connections,
            "Viewers gone, by close code; 1006 went without a close frame.", "4408 and 1006 are networks, 4413 slow viewers, 4429 abuse.";
        LinesRefusedTotal = "danmaku_lines_refused_total", C, Of("lines"), Refusal, Refusals,
            "Lines and events refused to their author, by the code it got.", "rate_limited: the limits bite; busy: a shard is behind.";
        RateLimitedTotal = "danmaku_rate_limited_total", C, Of("lines"), Bucket, Refusals,
            "Lines refused by flood control, by the bucket that was empty.", "user: abuse over several connections; room: raise limits.room_lines_per_s.";
        ShedTotal = "danmaku_shed_total", C, Of("things"), Shed, Shards,
            "What was given up because the node was overloaded.", "By what: lines and comfort are felt little, the rest is people.";
        DroppedTotal = "danmaku_dropped_total", C, Of("lines"), Dropped, FanOut,
            "Lines not delivered, once per viewer.", "slow: viewers are told how many; left: they were gone before they read.";
        HttpRequestsTotal = "danmaku_http_requests_total", C, Of("requests"), Status, Http,
            "HTTP requests answered, upgrades (101) included, by status.", "5xx: this node; 4xx: its callers.";
    }
}

families! {
    /// Durations, observed by shards in nanoseconds, summed over them.
    Hist {
        HandshakeSeconds = "danmaku_handshake_seconds", H, Seconds, None, Connections,
            "From a viewer's accept to its upgrade.", "High with short turns: slow clients or TLS; with long turns: this node.";
        FanoutSeconds = "danmaku_fanout_seconds", H, Seconds, None, FanOut,
            "From the numbering of a batch to its hand-over to the last member of a shard's walk.", "The latency this node adds.";
        TurnSeconds = "danmaku_turn_seconds", H, Seconds, None, Shards,
            "One turn of a shard, waiting for events not included.", "Long turns delay everything; the bounds of a turn should prevent them.";
    }
}

families! {
    /// Values of the whole node, read when the page is rendered.
    Node {
        ConnectionPermitsInUse = "danmaku_connection_permits_in_use", G, Of("connections"), None, Connections,
            "Connection permits taken: viewers and handshakes in flight.", "At the max new viewers get 503 connections_full.";
        ConnectionPermitsMax = "danmaku_connection_permits_max", G, Of("connections"), None, Connections,
            "Viewers this node admits.", "Set by admission.connections_max or the descriptor limit.";
        HandshakePermitsInUse = "danmaku_handshake_permits_in_use", G, Of("connections"), None, Connections,
            "Handshakes in flight.", "At the max new viewers get 503 handshakes_full.";
        HandshakePermitsMax = "danmaku_handshake_permits_max", G, Of("connections"), None, Connections,
            "Handshakes this node lets run at once.", "Set by admission.handshakes_max.";
        Shards = "danmaku_shards", G, Of("shards"), None, Shards,
            "Shards of this node.", "CPU per shard is process CPU divided by this.";
        RedisBreaker = "danmaku_redis_breaker", G, Of("0, 1 or 2"), None, Redis,
            "0: Redis is there and rooms are shared with other nodes, or none is configured; 1: it is back and proves itself; 2: it is away, and this node goes on by itself.", "Above 0 viewers of one room on several nodes do not see each other's lines.";
        RedisBreakerOpenedTotal = "danmaku_redis_breaker_opened_total", C, Of("times"), None, Redis,
            "Times that Redis was there and went.", "Each time rooms begin another numbering, and again when it is back.";
        RedisCommandsTotal = "danmaku_redis_commands_total", C, Of("commands"), None, Redis,
            "Commands answered.", "Its rate against that of danmaku_lines_total: what a line costs Redis.";
        RedisRoundTripsTotal = "danmaku_redis_round_trips_total", C, Of("round trips"), None, Redis,
            "Round trips they went out in.", "Commands a round trip: how well they gather.";
        RedisRoundTripSeconds = "danmaku_redis_round_trip_seconds", G, Seconds, None, Redis,
            "How long the latest round trip took.", "A shared line waits for one; above 20 ms for long the breaker opens.";
        RedisAsksWaiting = "danmaku_redis_asks_waiting", G, Of("questions"), None, Redis,
            "Questions of shards that wait to go out; at most 65,536.", "Grows: Redis or the one thread that asks it is at its limit.";
        RedisMessagesHeardTotal = "danmaku_redis_messages_heard_total", C, Of("messages"), None, Redis,
            "Messages that came by the channels of rooms with viewers here.", "None although lines are said: the other connection.";
        EventsStreamedTotal = "danmaku_events_streamed_total", C, Of("events"), None, Redis,
            "Entries put into the stream live:events.", "What analytics has to read.";
        EventsStreamLostTotal = "danmaku_events_stream_lost_total", C, Of("events"), None, Redis,
            "Events that the queue to Redis (65,536) had no place for.", "Above 0: analytics misses them.";
        EventsStreamWaiting = "danmaku_events_stream_waiting", G, Of("events"), None, Redis,
            "Events that wait for Redis.", "Grows: Redis is away or slow.";
        EventsKafkaTotal = "danmaku_events_kafka_total", C, Of("events"), None, Redis,
            "Events that Kafka has confirmed.", "What analytics has to read.";
        EventsKafkaLostTotal = "danmaku_events_kafka_lost_total", C, Of("events"), None, Redis,
            "Events lost on the way to Kafka: no place in the queue, or not confirmed in time.", "Above 0: analytics misses them.";
        EventsKafkaWaiting = "danmaku_events_kafka_waiting", G, Of("events"), None, Redis,
            "Events that wait for Kafka.", "Grows: its brokers are away or slow.";
        Ready = "danmaku_ready", G, Of("0 or 1"), None, Process,
            "1 while /readyz answers 200: not draining, every shard turning, a connection permit free, not cut off from a configured Redis.", "0 without danmaku_draining: a shard hangs, the node is full, or danmaku_redis_breaker is above 0.";
        Draining = "danmaku_draining", G, Of("0 or 1"), None, Process,
            "1 while the node drains.", "Whether falling connections are meant.";
        StartTimeSeconds = "danmaku_start_time_seconds", G, Seconds, None, Process,
            "When this node began to serve, in seconds since 1970.", "Restarts.";
        BuildInfo = "danmaku_build_info", G, Of("always 1"), Build, Process,
            "Version and source revision of this binary.", "Which node runs what.";
        LogLinesDroppedTotal = "danmaku_log_lines_dropped_total", C, Of("log lines"), None, Process,
            "Log lines lost because the log's reader was too slow or gone.", "Any: the log is not the whole truth.";
        ProcessCpuSecondsTotal = "process_cpu_seconds_total", C, Seconds, None, Process,
            "CPU time spent, all threads, user and system.", "Its rate near danmaku_shards: the node is full.";
        ProcessResidentMemoryBytes = "process_resident_memory_bytes", G, Bytes, None, Process,
            "Resident memory.", "Socket buffers are the kernel's and not in here.";
        ProcessVirtualMemoryBytes = "process_virtual_memory_bytes", G, Bytes, None, Process,
            "Virtual memory.", "Seldom.";
        ProcessOpenFds = "process_open_fds", G, Of("descriptors"), None, Process,
            "Descriptors open in all shards together.", "Against process_max_fds.";
        ProcessMaxFds = "process_max_fds", G, Of("descriptors"), None, Process,
            "Soft descriptor limit times the number of descriptor tables.", "Against process_open_fds, or danmaku_open_fds against this divided by danmaku_shards.";
        ProcessStartTimeSeconds = "process_start_time_seconds", G, Seconds, None, Process,
            "When the process began, in seconds since 1970.", "Restarts.";
        ProcessThreads = "process_threads", G, Of("threads"), None, Process,
            "Threads.", "Constant: shards and a few helpers.";
    }
}

/// Every row, in the order of the page.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        Counter::FAMILIES,
        Gauge::FAMILIES,
        Labelled::FAMILIES,
        Hist::FAMILIES,
        Node::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

impl Hist {
    /// Most finite buckets a histogram has.
    pub const BOUNDS_MAX: usize = 16;

    /// Upper bounds of the finite buckets in nanoseconds, inclusive, ascending, at most [`Hist::BOUNDS_MAX`].
    pub fn bounds_ns(self) -> &'static [u64] {
        match self {
            Hist::TurnSeconds => &[
                50 * US,
                100 * US,
                250 * US,
                500 * US,
                MS,
                5 * MS / 2,
                5 * MS,
                10 * MS,
                25 * MS,
                50 * MS,
                100 * MS,
                250 * MS,
                500 * MS,
                S,
            ],
            Hist::FanoutSeconds => &[
                100 * US,
                250 * US,
                500 * US,
                MS,
                5 * MS / 2,
                5 * MS,
                10 * MS,
                25 * MS,
                50 * MS,
                100 * MS,
                250 * MS,
                500 * MS,
                S,
                5 * S / 2,
                5 * S,
                10 * S,
            ],
            Hist::HandshakeSeconds => &[
                MS,
                5 * MS / 2,
                5 * MS,
                10 * MS,
                25 * MS,
                50 * MS,
                100 * MS,
                250 * MS,
                500 * MS,
                S,
                5 * S / 2,
                5 * S,
                10 * S,
            ],
        }
    }
}

/// Why a line did not reach a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The room log let go of it before the viewer took it; the viewer is told how many.
    Slow,
    /// It was still due to a viewer when that viewer left the room, was closed or broke off.
    Left,
    /// The room's delivery budget had no place for it; the viewer is told how many.
    Sampled,
}

impl Dropped {
    /// Every reason, in cell order.
    pub const ALL: [Dropped; 3] = [Dropped::Slow, Dropped::Left, Dropped::Sampled];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::Slow => "slow",
            Dropped::Left => "left",
            Dropped::Sampled => "sampled",
        }
    }
}

/// What was given up for the node's sake, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Looks at online counts that were not told.
    Comfort,
    /// Lines of the crowd that were left out, each counted once.
    Lines,
    /// Anonymous viewers that were refused.
    Arrivals,
    /// Pushes of lines that were refused.
    Pushes,
    /// Viewers closed because they took nothing.
    Slow,
    /// Guests in no room that were asked to come back later.
    Idle,
}

impl Shed {
    /// Everything, in cell order.
    pub const ALL: [Shed; 6] = [
        Shed::Comfort,
        Shed::Lines,
        Shed::Arrivals,
        Shed::Pushes,
        Shed::Slow,
        Shed::Idle,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Shed::Comfort => "comfort",
            Shed::Lines => "lines",
            Shed::Arrivals => "arrivals",
            Shed::Pushes => "pushes",
            Shed::Slow => "slow",
            Shed::Idle => "idle",
        }
    }
}

/// Which flood-control bucket was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// The connection's.
    Connection,
    /// The user's, over all its connections.
    User,
    /// The room's.
    Room,
}

impl Bucket {
    /// Every bucket, in cell order.
    pub const ALL: [Bucket; 3] = [Bucket::Connection, Bucket::User, Bucket::Room];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Bucket::Connection => "connection",
            Bucket::User => "user",
            Bucket::Room => "room",
        }
    }
}

/// Close codes with a series of their own (`docs/PROTOCOL.md`; 1006 is RFC 6455's "no close frame", never on the wire).
pub const CLOSE_CODES: [u16; 16] = [
    1000, 1001, 1002, 1003, 1006, 1007, 1009, 4001, 4003, 4004, 4008, 4400, 4408, 4410, 4413, 4429,
];

/// HTTP statuses with a series of their own: all the house answers with.
pub const HTTP_STATUSES: [u16; 29] = [
    101, 200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422,
    426, 429, 431, 500, 501, 502, 503, 504, 505, 507,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_end_as_their_kind_and_unit_say() {
        let mut seen = HashSet::new();
        for family in families() {
            let name = family.name;
            assert!(seen.insert(name), "{name} is declared twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            let stem = name.strip_suffix("_total");
            assert_eq!(stem.is_some(), family.kind == Kind::Counter, "{name}");
            let unit = match family.unit {
                Unit::Seconds => "_seconds",
                _ => "",
            };
            assert!(stem.unwrap_or(name).ends_with(unit), "{name}");
            assert!(family.help.ends_with('.'), "{name}: help is a sentence");
            assert!(!family.look.is_empty(), "{name}: when does one look at it?");
        }
    }

    #[test]
    fn the_names_of_the_public_contract_stay() {
        let names: HashSet<_> = families().map(|family| family.name).collect();
        for name in [
            "danmaku_connections",
            "danmaku_connections_accepted_total",
            "danmaku_refusals_total",
            "danmaku_lines_total",
            "danmaku_deliveries_total",
            "danmaku_dropped_total",
            "danmaku_rooms",
            "danmaku_build_info",
        ] {
            assert!(names.contains(name), "{name} is gone");
        }
    }

    #[test]
    fn bounds_ascend_and_fit_their_cells() {
        for hist in Hist::ALL {
            let bounds = hist.bounds_ns();
            assert!(bounds.len() <= Hist::BOUNDS_MAX, "{hist:?}");
            assert!(bounds.windows(2).all(|w| w[0] < w[1]), "{hist:?}");
        }
    }

    #[test]
    fn every_refusal_has_its_status_cell_and_its_own_reason_cell() {
        for (cell, &code) in Code::ALL.iter().enumerate() {
            assert!(HTTP_STATUSES.contains(&code.status()), "{code:?}");
            assert_eq!(code as usize, cell, "{code:?} is not in cell order");
        }
        for (cell, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, cell);
        }
        for (cell, bucket) in Bucket::ALL.into_iter().enumerate() {
            assert_eq!(bucket as usize, cell);
        }
    }

    #[test]
    fn label_sets_end() {
        assert_eq!(Labels::Close.value(0).as_deref(), Some("1000"));
        assert_eq!(Labels::Close.value(16).as_deref(), Some("other"));
        assert_eq!(Labels::Close.value(17), None);
        assert_eq!(Labels::Refusal.value(Code::ALL.len()), None);
        assert_eq!(Labels::Shard.value(0), None);
    }
}
