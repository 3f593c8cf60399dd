//! The values that labels can have, as enums: a label with an enum cannot grow without bound.
//!
//! [`metrics`](super::metrics) re-exports them, next to the functions that take them. Other modules translate their own types into
//! these with an exhaustive `match`, so that a new state or reason cannot be forgotten here.

/// Declares an enum whose variants are the values of a label.
macro_rules! label_values {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$meaning])* $variant),+ }

        impl $name {
            /// All variants, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The label values of all variants, in the same order.
            pub const VALUES: &'static [&'static str] = &[$($value),+];

            /// The label value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }
    };
}

label_values! {
    /// The gRPC status code that a call ended with.
    RpcCode {
        /// Success.
        Ok = "ok",
        /// Cancelled, also by a client that went away before the end.
        Cancelled = "cancelled",
        /// Unknown, also for an answer without a status.
        Unknown = "unknown",
        /// The request is wrong whatever the server's state.
        InvalidArgument = "invalid_argument",
        /// The client's deadline passed.
        DeadlineExceeded = "deadline_exceeded",
        /// The thing asked for does not exist.
        NotFound = "not_found",
        /// It exists already.
        AlreadyExists = "already_exists",
        /// The caller may not do this.
        PermissionDenied = "permission_denied",
        /// A queue or a quota is full.
        ResourceExhausted = "resource_exhausted",
        /// The server's state does not allow it now.
        FailedPrecondition = "failed_precondition",
        /// Something else happened at the same time; start over.
        Aborted = "aborted",
        /// Past the valid range.
        OutOfRange = "out_of_range",
        /// No such method.
        Unimplemented = "unimplemented",
        /// A bug or a broken invariant of ours.
        Internal = "internal",
        /// Not now; try again.
        Unavailable = "unavailable",
        /// Data are lost or corrupt.
        DataLoss = "data_loss",
        /// The caller is not known.
        Unauthenticated = "unauthenticated",
    }
}

label_values! {
    /// How the prediction for one image ended.
    ImageOutcome {
        /// An age was computed.
        Ok = "ok",
        /// The image could not be decoded or breaks a limit.
        InvalidImage = "invalid_image",
        /// Its deadline passed before it was computed.
        Expired = "expired",
        /// Its client left before it was computed.
        Cancelled = "cancelled",
        /// It was not admitted: the queue was full.
        Overloaded = "overloaded",
        /// Anything else went wrong.
        Failed = "failed",
    }
}

label_values! {
    /// What a look into the cache of answers gave.
    CacheResult {
        /// The answer.
        Hit = "hit",
        /// Nothing.
        Miss = "miss",
    }
}

label_values! {
    /// Why a prediction request, or a part of it, was turned away without being computed.
    RejectionReason {
        /// The queue was full.
        QueueFull = "queue_full",
        /// The client had its share of the queue, and others wanted theirs.
        ShareFull = "share_full",
        /// Its turn would hardly have come before its deadline.
        WaitTooLong = "wait_too_long",
        /// The image could not be decoded.
        InvalidImage = "invalid_image",
        /// The deadline passed while it waited, or leaves less time than it takes by itself.
        DeadlineExceeded = "deadline_exceeded",
        /// The client left while it waited.
        ClientGone = "client_gone",
        /// No model serves under the name that was asked for.
        NoModel = "no_model",
        /// Too many bytes, pixels or images.
        TooLarge = "too_large",
    }
}

label_values! {
    /// A state of a training.
    TrainingState {
        /// Waits for a device.
        Queued = "queued",
        /// Its worker reads the data set and the weights.
        Preparing = "preparing",
        /// Its worker trains.
        Running = "running",
        /// Asked to pause; writes its checkpoint.
        Pausing = "pausing",
        /// Rests until it is resumed.
        Paused = "paused",
        /// Asked to end early with its best checkpoint.
        Stopping = "stopping",
        /// Asked to cancel.
        Cancelling = "cancelling",
        /// Ended with a model.
        Succeeded = "succeeded",
        /// Ended with an error.
        Failed = "failed",
        /// Ended because someone cancelled it.
        Cancelled = "cancelled",
    }
}

label_values! {
    /// Why a training ended.
    StopReason {
        /// All epochs were done.
        MaxEpochs = "max_epochs",
        /// The validation loss no longer fell.
        EarlyStopped = "early_stopped",
        /// The target that was asked for was reached.
        TargetReached = "target_reached",
        /// Someone stopped or cancelled it.
        UserStop = "user_stop",
        /// Its time was up.
        MaxDuration = "max_duration",
        /// The loss became infinite or not a number.
        NonFiniteLoss = "non_finite_loss",
        /// Memory ran out.
        OutOfMemory = "out_of_memory",
        /// The data set cannot be used.
        DataError = "data_error",
        /// The worker process died.
        WorkerDied = "worker_died",
        /// It was restarted with the server too often.
        ServerRestartLimit = "server_restart_limit",
        /// A bug or a broken invariant of ours.
        Internal = "internal",
    }
}

label_values! {
    /// Which part of the data set a number is about.
    Split {
        /// The images that are learned from.
        Train = "train",
        /// The images that choose the best epoch.
        Validation = "validation",
    }
}

label_values! {
    /// What a training's time is spent on.
    TrainingPhase {
        /// Waiting for decoded images or cached features.
        Data = "data",
        /// The forward pass and the loss.
        Forward = "forward",
        /// The backward pass.
        Backward = "backward",
        /// The optimizer's step.
        Update = "update",
        /// The pass over the validation split.
        Validate = "validate",
        /// Writing checkpoints.
        Checkpoint = "checkpoint",
    }
}

label_values! {
    /// Why an image of a data set was left out of a training.
    SkipReason {
        /// The file is not there or cannot be opened.
        Unreadable = "unreadable",
        /// It is not an image that can be decoded.
        Undecodable = "undecodable",
        /// It breaks a limit on bytes or pixels.
        TooLarge = "too_large",
        /// Its age is missing, not a number, or out of range.
        InvalidLabel = "invalid_label",
    }
}

label_values! {
    /// Why a span of a trace never reached the collector.
    SpanLoss {
        /// There were more than the queue holds.
        QueueFull = "queue_full",
        /// The collector did not answer, or refused.
        ExportFailed = "export_failed",
    }
}
