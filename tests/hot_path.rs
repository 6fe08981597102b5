//! What a delivery costs the allocator: nothing. A gateway in this process, an allocator that counts what its threads ask
//! for, and the same lines to few members and to many.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use danmaku_gateway::config::cli::Serve;
use danmaku_gateway::config::load::{Machine, load};
use danmaku_gateway::gateway::{Gateway, Order};
use danmaku_gateway::telemetry::log;

/// Counts allocations of every thread that is not the test's own.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether the thread is the test's.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    if !OURS.with(Cell::get) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// What only a line holds; each is sent by itself, so no read cuts one.
const LINE: &[u8] = b"\"text\":\"~\"";
const LINES: u64 = 1000;
const FEW: usize = 10;
const MANY: usize = 300;

#[test]
fn a_delivery_allocates_nothing() {
    OURS.with(|ours| ours.set(true));
    let gateway = start();
    let mut few = Room::fill(gateway.public(), "few", FEW);
    let mut many = Room::fill(gateway.public(), "many", MANY);
    // What grows once has grown.
    few.say(LINES);
    many.say(LINES);
    let of_few = few.say(LINES);
    let of_many = many.say(LINES);
    let deliveries = LINES * (MANY - FEW) as u64;
    println!(
        "{LINES} lines: {of_few} allocations with {FEW} members, {of_many} with {MANY}: {deliveries} deliveries more"
    );
    let per_line = of_few / LINES;
    assert!((1..=12).contains(&per_line), "{per_line} for a line");
    let more = of_many.saturating_sub(of_few);
    assert!(
        more < LINES / 10,
        "{more} allocations for {deliveries} deliveries more"
    );
}

/// A gateway of one shard, with flood limits out of the way.
fn start() -> Gateway {
    let name = format!("danmaku-hot-path-{}.toml", std::process::id());
    let config = std::env::temp_dir().join(name);
    let settings = "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 1\n[auth]\nanonymous = \"speak\"\n\
                    [limits]\nlines_per_s = 1000000\nline_burst = 1000000\n[log]\nlevel = \"warn\"\n";
    std::fs::write(&config, settings).unwrap();
    let serve = Serve {
        config: Some(config.clone()),
        ..Serve::default()
    };
    let machine = Machine {
        cores: 1,
        random: [7; 64],
    };
    let loaded = load(&serve, &mut std::iter::empty(), &machine).unwrap();
    std::fs::remove_file(config).unwrap();
    let log = log::init(loaded.config.log.level, log::Format::Plain).unwrap();
    let order = Order {
        loaded,
        ready_file: None,
        log: log.handle(),
        reload: Box::new(|| Err("not here".into())),
    };
    Gateway::start(&order).unwrap()
}

/// Members that read as fast as they can, and one that speaks.
struct Room {
    name: &'static str,
    speaker: TcpStream,
    heard: Arc<AtomicU64>,
    members: u64,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Room {
    fn fill(gateway: SocketAddr, name: &'static str, members: usize) -> Room {
        let mut sockets: Vec<TcpStream> = (0..members).map(|_| enter(gateway, name)).collect();
        let speaker = sockets[0].try_clone().unwrap();
        let (heard, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, ended) = (Arc::clone(&heard), Arc::clone(&over));
        let read = move || {
            OURS.with(|ours| ours.set(true));
            let mut bytes = vec![0; 1 << 20];
            while !ended.load(Ordering::Relaxed) {
                for socket in &mut sockets {
                    while let Ok(read @ 1..) = socket.read(&mut bytes) {
                        counted.fetch_add(count_of(LINE, &bytes[..read]), Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        Room {
            name,
            speaker,
            heard,
            members: members as u64,
            over,
            reader: Some(std::thread::spawn(read)),
        }
    }

    /// Says so many lines, one every time the last one has reached everyone, and returns what the gateway allocated meanwhile.
    fn say(&mut self, lines: u64) -> u64 {
        let json = format!(r#"{{"type":"danmaku","room":"{}","text":"~"}}"#, self.name);
        let mut frame = vec![0x81, 0x80 | json.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(json.as_bytes());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let from = self.heard.load(Ordering::Relaxed);
        for line in 1..=lines {
            self.speaker.write_all(&frame).unwrap();
            for _ in 0..100_000 {
                if self.heard.load(Ordering::Relaxed) >= from + line * self.members {
                    break;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let heard = self.heard.load(Ordering::Relaxed) - from;
        assert_eq!(heard, lines * self.members, "every line reached everyone");
        ALLOCATIONS.load(Ordering::Relaxed) - before
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Upgrades and joins; what has been read is thrown away.
fn enter(gateway: SocketAddr, room: &str) -> TcpStream {
    let mut socket = TcpStream::connect(gateway).unwrap();
    let request = format!(
        "GET /ws?room={room} HTTP/1.1\r\nHost: {gateway}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut heard = Vec::new();
    let mut bytes = [0; 4096];
    while count_of(b"\"joined\"", &heard) == 0 {
        let read = socket.read(&mut bytes).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&bytes[..read]);
    }
    socket.set_nonblocking(true).unwrap();
    socket
}

/// How often `wanted` stands in `bytes`.
fn count_of(wanted: &[u8], bytes: &[u8]) -> u64 {
    let windows = bytes.windows(wanted.len());
    windows.filter(|window| *window == wanted).count() as u64
}
