//! Timeouts of calls and streams, and the delays between attempts.

use std::time::Duration;

use uuid::Uuid;

#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// Delay before the second attempt; doubles with each further one.
    pub(crate) initial_delay: Duration,
    pub(crate) max_delay: Duration,
    /// Time without contact after which a call fails.
    pub(crate) call_timeout: Duration,
    /// Time without contact after which a stream fails.
    pub(crate) stream_timeout: Duration,
    /// Silence of an open stream, heartbeats included, after which it is opened again.
    pub(crate) heartbeat_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(300),
            heartbeat_timeout: Duration::from_secs(45),
        }
    }
}

impl RetryPolicy {
    /// Delay after this many consecutive failures (from 1): exponential, with a random factor of
    /// 0.5 to 1, so that the clients of a restarted server do not all reconnect at once. The
    /// server's `retry_delay` is the minimum.
    pub(crate) fn delay(&self, failures: u32, retry_delay: Option<Duration>) -> Duration {
        let doubled = self
            .initial_delay
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        let whole = doubled.min(self.max_delay);
        let share = f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let random = whole.mul_f64(0.5 + 0.5 * share);
        random.max(retry_delay.unwrap_or_default().min(self.max_delay))
    }
}
