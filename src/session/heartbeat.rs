//! When a viewer is pinged, when it is given up, when its token ends. Pure: instants are milliseconds on the shard's clock.
//!
//! Timers are lazy: activity only stamps a time, and the one wheel entry of the connection asks here when it fires.

/// What is known of a viewer when its timer fires. All in monotonic milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The last time anything was heard from it.
    pub heard_ms: u64,
    /// Whether it has been pinged since.
    pub pinged: bool,
    /// Since when it has taken none of what waits for it; `None` while nothing waits.
    pub stuck_since_ms: Option<u64>,
    /// When its token, leeway included, ends.
    pub expires_ms: Option<u64>,
    /// When a close handshake under way is given up.
    pub closing_until_ms: Option<u64>,
}

/// What to do now, or when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before then.
    Wait {
        /// Monotonic milliseconds.
        until_ms: u64,
    },
    /// Send a WebSocket ping; then ask again.
    Ping,
    /// Silent for two intervals: close with 4408.
    Silent,
    /// Took nothing for too long: cut it (4413).
    Stuck,
    /// Its token ended: close with 4410.
    Expired,
    /// It never answered our close frame: cut it.
    CloseUnanswered,
}

impl Pulse {
    /// Judges a viewer.
    pub fn beat(&self, now_ms: u64, interval_ms: u64, stuck_ms: u64) -> Beat {
        if let Some(until_ms) = self.closing_until_ms {
            return match until_ms <= now_ms {
                true => Beat::CloseUnanswered,
                false => Beat::Wait { until_ms },
            };
        }
        let stuck_at = self.stuck_since_ms.map(|since| since + stuck_ms);
        let silent_at = self.heard_ms + 2 * interval_ms;
        let ping_at = self.heard_ms + interval_ms;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        if due(self.expires_ms) {
            Beat::Expired
        } else if due(stuck_at) {
            Beat::Stuck
        } else if silent_at <= now_ms {
            Beat::Silent
        } else if ping_at <= now_ms && !self.pinged {
            Beat::Ping
        } else {
            let heartbeat = if self.pinged { silent_at } else { ping_at };
            let until_ms = [stuck_at, self.expires_ms]
                .into_iter()
                .flatten()
                .fold(heartbeat, u64::min);
            Beat::Wait { until_ms }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Pulse = Pulse {
        heard_ms: 1000,
        pinged: false,
        stuck_since_ms: None,
        expires_ms: None,
        closing_until_ms: None,
    };

    #[test]
    fn one_silent_interval_pings_two_close() {
        assert_eq!(CALM.beat(1000, 30, 10), Beat::Wait { until_ms: 1030 });
        assert_eq!(CALM.beat(1030, 30, 10), Beat::Ping);
        let pinged = Pulse {
            pinged: true,
            ..CALM
        };
        assert_eq!(pinged.beat(1030, 30, 10), Beat::Wait { until_ms: 1060 });
        assert_eq!(pinged.beat(1059, 30, 10), Beat::Wait { until_ms: 1060 });
        assert_eq!(pinged.beat(1060, 30, 10), Beat::Silent);
    }

    #[test]
    fn the_earliest_deadline_wins() {
        let stuck = Pulse {
            stuck_since_ms: Some(1005),
            expires_ms: Some(1012),
            ..CALM
        };
        assert_eq!(stuck.beat(1006, 30, 10), Beat::Wait { until_ms: 1012 });
        assert_eq!(stuck.beat(1012, 30, 10), Beat::Expired);
        let stuck = Pulse {
            expires_ms: None,
            ..stuck
        };
        assert_eq!(stuck.beat(1014, 30, 10), Beat::Wait { until_ms: 1015 });
        assert_eq!(stuck.beat(1015, 30, 10), Beat::Stuck);
    }

    #[test]
    fn a_close_under_way_is_only_waited_for() {
        let closing = Pulse {
            closing_until_ms: Some(2000),
            expires_ms: Some(0),
            ..CALM
        };
        assert_eq!(closing.beat(1999, 30, 10), Beat::Wait { until_ms: 2000 });
        assert_eq!(closing.beat(2000, 30, 10), Beat::CloseUnanswered);
    }
}
