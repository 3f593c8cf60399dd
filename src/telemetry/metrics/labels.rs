//! The values of labels as enums, so that a label cannot grow without bound.
//!
//! Other modules convert their own types into these with an exhaustive `match`, so that a new
//! state or reason cannot be missing here.

/// Declares an enum whose variants are the values of a label.
macro_rules! label_values {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$meaning])* $variant),+ }

        impl $name {
            #[allow(dead_code, reason = "not every label is enumerated")]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The label values of all variants, in the same order.
            pub(crate) const VALUES: &'static [&'static str] = &[$($value),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }
    };
}

label_values! {
    /// The gRPC status code of a call, in the order of the numbers.
    RpcCode {
        Ok = "ok",
        /// Also a client that disconnected before the end.
        Cancelled = "cancelled",
        /// Also a response without a status.
        Unknown = "unknown",
        InvalidArgument = "invalid_argument",
        DeadlineExceeded = "deadline_exceeded",
        NotFound = "not_found",
        AlreadyExists = "already_exists",
        PermissionDenied = "permission_denied",
        ResourceExhausted = "resource_exhausted",
        FailedPrecondition = "failed_precondition",
        Aborted = "aborted",
        OutOfRange = "out_of_range",
        Unimplemented = "unimplemented",
        Internal = "internal",
        Unavailable = "unavailable",
        DataLoss = "data_loss",
        Unauthenticated = "unauthenticated",
    }
}

impl From<tonic::Code> for RpcCode {
    fn from(code: tonic::Code) -> Self {
        match code {
            tonic::Code::Ok => RpcCode::Ok,
            tonic::Code::Cancelled => RpcCode::Cancelled,
            tonic::Code::Unknown => RpcCode::Unknown,
            tonic::Code::InvalidArgument => RpcCode::InvalidArgument,
            tonic::Code::DeadlineExceeded => RpcCode::DeadlineExceeded,
            tonic::Code::NotFound => RpcCode::NotFound,
            tonic::Code::AlreadyExists => RpcCode::AlreadyExists,
            tonic::Code::PermissionDenied => RpcCode::PermissionDenied,
            tonic::Code::ResourceExhausted => RpcCode::ResourceExhausted,
            tonic::Code::FailedPrecondition => RpcCode::FailedPrecondition,
            tonic::Code::Aborted => RpcCode::Aborted,
            tonic::Code::OutOfRange => RpcCode::OutOfRange,
            tonic::Code::Unimplemented => RpcCode::Unimplemented,
            tonic::Code::Internal => RpcCode::Internal,
            tonic::Code::Unavailable => RpcCode::Unavailable,
            tonic::Code::DataLoss => RpcCode::DataLoss,
            tonic::Code::Unauthenticated => RpcCode::Unauthenticated,
        }
    }
}

label_values! {
    /// A port of the server.
    Port {
        Grpc = "grpc",
        Http = "http",
    }
}

label_values! {
    /// The reason why the server closed a connection.
    ConnectionRefusal {
        /// `max_connections` are open.
        Limit = "limit",
        /// `max_connections_per_address` are open from the address.
        AddressLimit = "address_limit",
        /// Its TLS handshake failed, or did not end in time.
        Handshake = "handshake",
        /// It sent no request in time.
        NoRequest = "no_request",
        /// The client did not read a response in time.
        NotRead = "not_read",
    }
}

label_values! {
    /// The outcome of the prediction of one image.
    ImageOutcome {
        Ok = "ok",
        /// The image cannot be decoded or exceeds a limit.
        InvalidImage = "invalid_image",
        /// Its deadline passed before inference.
        Expired = "expired",
        /// Its client disconnected before inference.
        Cancelled = "cancelled",
        /// It was not admitted because the queue was full.
        Overloaded = "overloaded",
        Failed = "failed",
    }
}

label_values! {
    /// The result of a lookup in the response cache.
    CacheResult {
        Hit = "hit",
        Miss = "miss",
    }
}

label_values! {
    /// The reason why a prediction request, or a part of it, was rejected before inference.
    RejectionReason {
        QueueFull = "queue_full",
        /// The client had used its share of the queue while other clients needed theirs.
        ShareFull = "share_full",
        /// The estimated wait exceeded the deadline.
        WaitTooLong = "wait_too_long",
        InvalidImage = "invalid_image",
        /// The deadline passed in the queue, or leaves less time than inference takes.
        DeadlineExceeded = "deadline_exceeded",
        /// The client disconnected while its image was queued.
        ClientGone = "client_gone",
        /// The requested model has no live version.
        NoModel = "no_model",
        /// Too many bytes, pixels or images.
        TooLarge = "too_large",
    }
}

label_values! {
    TrainingState {
        /// Waits for a device.
        Queued = "queued",
        /// Its worker reads the dataset and the weights.
        Preparing = "preparing",
        Running = "running",
        /// Its worker writes a resume point.
        Pausing = "pausing",
        Paused = "paused",
        /// Ends early with its best checkpoint.
        Stopping = "stopping",
        Cancelling = "cancelling",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

label_values! {
    /// The reason why a training ended.
    StopReason {
        MaxEpochs = "max_epochs",
        /// The validation loss stopped improving.
        EarlyStopped = "early_stopped",
        TargetReached = "target_reached",
        /// A client stopped or cancelled it.
        UserStop = "user_stop",
        MaxDuration = "max_duration",
        NonFiniteLoss = "non_finite_loss",
        OutOfMemory = "out_of_memory",
        /// The dataset cannot be used.
        DataError = "data_error",
        WorkerDied = "worker_died",
        /// The server restarted too often while it ran.
        ServerRestartLimit = "server_restart_limit",
        Internal = "internal",
    }
}

label_values! {
    /// A part of the dataset.
    Split {
        Train = "train",
        Validation = "validation",
    }
}

label_values! {
    /// A part of a training's time.
    TrainingPhase {
        /// Waiting for decoded images or cached features.
        Data = "data",
        /// The forward pass and the loss.
        Forward = "forward",
        Backward = "backward",
        /// The optimizer step.
        Update = "update",
        /// The pass over the validation split.
        Validate = "validate",
        /// Writing checkpoints.
        Checkpoint = "checkpoint",
    }
}

label_values! {
    /// The reason why an image of a dataset was excluded from a training.
    SkipReason {
        /// The file does not exist or cannot be opened.
        Unreadable = "unreadable",
        Undecodable = "undecodable",
        /// It exceeds a limit on bytes or pixels.
        TooLarge = "too_large",
        /// Its age is missing, not a number, or out of range.
        InvalidLabel = "invalid_label",
    }
}

label_values! {
    /// The reason why a span did not reach the collector.
    SpanLoss {
        QueueFull = "queue_full",
        /// The collector did not respond, or refused.
        ExportFailed = "export_failed",
    }
}
