//! Control signals, from a client's request to the training loop.

/// A request to a running training. Of several requests the strongest wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ControlSignal {
    #[default]
    Continue,
    /// Write a full checkpoint and release the device.
    Pause,
    /// Stop early and keep the best checkpoint.
    Stop,
    /// Stop without a result.
    Cancel,
    /// In the server: kill the process. In the worker: exit, because the server is gone.
    Kill,
}
