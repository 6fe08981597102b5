//! Who hears Redis: one listener for each server that publishes. Owned by the thread that asks, which knows where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use super::keys;
use super::listener::{Hears, Listener, Wish};
use super::wire::Layout;

/// The listeners.
pub struct Ears {
    hears: Hears,
    layout: Option<Layout>,
    each: Vec<Ear>,
}

struct Ear {
    wishes: Sender<Wish>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Ears {
    /// None yet.
    pub fn new(hears: Hears) -> Ears {
        Ears {
            hears,
            layout: None,
            each: Vec::new(),
        }
    }

    /// Whether they are where Redis is.
    pub fn suit(&self, layout: &Layout) -> bool {
        self.layout.as_ref() == Some(layout)
    }

    /// Listens where Redis is now. Those that listen elsewhere end.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn listen(&mut self, layout: &Layout) -> std::io::Result<()> {
        if self.suit(layout) {
            return Ok(());
        }
        self.stop();
        for index in 0..layout.masters.len() {
            let (wishes, wished) = unbounded();
            let stop = Arc::new(AtomicBool::new(false));
            let hears = self.hears.clone();
            let listener = Listener::new(hears, layout, index, wished, Arc::clone(&stop));
            let named = std::thread::Builder::new().name(format!("redis-listen-{index}"));
            let thread = named.spawn(move || listener.run())?;
            self.each.push(Ear {
                wishes,
                stop,
                thread,
            });
        }
        self.layout = Some(layout.clone());
        Ok(())
    }

    /// Hands a wish to whom it concerns; which of them is to look up.
    pub fn wish(&self, wish: Wish) -> usize {
        let at = match (&wish, &self.layout) {
            (Wish::Subscribe { room, .. } | Wish::Unsubscribe { room }, Some(layout)) => {
                layout.owner(&keys::channel(room))
            }
            _ => 0,
        };
        if let Some(ear) = self.each.get(at) {
            // Its thread lives as long as this one, or the process ends.
            let _ = ear.wishes.send(wish);
        }
        at
    }

    /// The shards will ask anew for every room they want.
    pub fn forget(&self) {
        for ear in &self.each {
            let _ = ear.wishes.send(Wish::Forget);
        }
    }

    /// When the newest canary that every one of them heard had been sent.
    pub fn heard_ns(&self) -> u64 {
        let heard = self.hears.shared.canaries.iter().take(self.each.len());
        let heard = heard.map(|canary| canary.load(Ordering::Acquire));
        heard.min().unwrap_or(0)
    }

    /// Ends them: at the latest when what they wait for times out.
    pub fn stop(&mut self) {
        self.layout = None;
        for ear in &self.each {
            ear.stop.store(true, Ordering::Relaxed);
        }
        for ear in self.each.drain(..) {
            // One that panicked has said so.
            let _ = ear.thread.join();
        }
        self.hears.shared.moved.store(false, Ordering::Release);
        for canary in &self.hears.shared.canaries {
            canary.store(0, Ordering::Release);
        }
    }
}
