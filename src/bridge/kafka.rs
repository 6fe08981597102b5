//! The thread that brings what happens to Kafka, keyed by room: one room's events stand in one partition, in order. librdkafka keeps what
//! its brokers have not confirmed, asks again, and tells what became of it; what finds no place is lost and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::bus::{Happened, Sink};
use crate::telemetry::sink::SinkStats;

/// What may wait for the thread, and as much again for the brokers.
const WAITING_MAX: usize = 65_536;
/// Events handed on between two looks at what came of earlier ones.
const TOGETHER_MAX: usize = 512;
/// What came of earlier events is looked at this often.
const LOOKS_UP: Duration = Duration::from_millis(20);
/// What an ending process may take to bring what waits.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the thread is started with.
pub struct Start {
    /// `kafka.brokers`.
    pub brokers: String,
    /// `kafka.topic`.
    pub topic: String,
    /// `kafka.options`: librdkafka's own settings.
    pub options: Vec<(String, String)>,
    /// This node.
    pub node: String,
    /// Where it tells of itself.
    pub stats: Arc<SinkStats>,
}

/// The running thread.
pub struct Kafka {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Counts what became of events.
struct Told(Arc<SinkStats>);

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "Kafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "events wait for Kafka");
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.confirmed(1),
            Err(_) => self.0.dropped(1),
        }
    }
}

impl Kafka {
    /// Starts it. librdkafka connects by itself.
    ///
    /// # Errors
    /// An option it does not know, or the system has no thread left.
    pub fn start(start: Start) -> Result<(Kafka, Sink), String> {
        let mut config = ClientConfig::new();
        let in_flight = WAITING_MAX.to_string();
        for (option, value) in [
            ("bootstrap.servers", start.brokers.as_str()),
            ("client.id", &start.node),
            ("enable.idempotence", "true"),
            ("queue.buffering.max.messages", &in_flight),
            ("queue.buffering.max.kbytes", "65536"),
            ("compression.codec", "lz4"),
        ] {
            config.set(option, value);
        }
        for (option, value) in &start.options {
            config.set(option, value);
        }
        let told = Told(Arc::clone(&start.stats));
        let producer: BaseProducer<Told> = config
            .create_with_context(told)
            .map_err(|error| error.to_string())?;
        let (queue, happened) = bounded(WAITING_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let sink = Sink {
            queue,
            stats: Arc::clone(&start.stats),
        };
        let stops = Arc::clone(&stop);
        let named = std::thread::Builder::new().name("kafka-events".into());
        let thread = named
            .spawn(move || bring(&start, &producer, &happened, &stops))
            .map_err(|error| error.to_string())?;
        Ok((Kafka { stop, thread }, sink))
    }

    /// It is to end: what waits is brought to the brokers, as far as two seconds suffice.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until it has ended.
    pub fn join(self) {
        // One that panicked has said so.
        let _ = self.thread.join();
    }
}

fn bring(
    start: &Start,
    producer: &BaseProducer<Told>,
    happened: &Receiver<Happened>,
    stop: &AtomicBool,
) {
    loop {
        match happened.recv_timeout(LOOKS_UP) {
            Ok(event) => send(start, producer, event, stop),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        for event in happened.try_iter().take(TOGETHER_MAX) {
            send(start, producer, event, stop);
        }
        producer.poll(Duration::ZERO);
        let waiting = producer.in_flight_count().max(0) as u64 + happened.len() as u64;
        start.stats.waits(waiting);
        if stop.load(Ordering::Relaxed) && happened.is_empty() {
            break;
        }
    }
    // What it cannot bring in time is lost with the process.
    if producer.flush(FAREWELL).is_err() {
        start
            .stats
            .dropped(producer.in_flight_count().max(0) as u64);
    }
}

/// Hands an event to librdkafka, waiting for a place in its queue while the brokers take some: whoever waits behind it waits here.
fn send(start: &Start, producer: &BaseProducer<Told>, event: Happened, stop: &AtomicBool) {
    start.stats.took(event.json.len() as u64);
    let kind = Header {
        key: "type",
        value: Some(event.kind),
    };
    let node = Header {
        key: "node",
        value: Some(&start.node),
    };
    let key = event.room.as_ref().map_or("", |room| room.as_str());
    let record = BaseRecord::to(&start.topic)
        .key(key)
        .payload(&event.json[..])
        .headers(OwnedHeaders::new().insert(kind).insert(node));
    if let Err((error, record)) = producer.send(record) {
        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        let ends = stop.load(Ordering::Relaxed);
        producer.poll(if ends { Duration::ZERO } else { LOOKS_UP });
        if !full || producer.send(record).is_err() {
            start.stats.dropped(1);
        }
    }
}
