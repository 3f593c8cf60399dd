//! The generated messages, clients and servers of the API, of the worker protocol and of
//! TensorBoard's files, and their JSON form.
//!
//! The comments in `proto/` are the reference documentation; the messages are not written by hand.

pub(crate) mod codec;
mod elements;
pub(crate) mod in_flight;
pub(crate) mod recorded;
pub mod validation;

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde::de::DeserializeSeed as _;

/// Descriptors of the public API and its imports, for reflection and for JSON.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));

/// The Open Inference Protocol, package `inference`.
pub use generated::inference as open_inference;
/// Content of TensorBoard event files, package `visage.tensorboard.v1`.
pub(crate) use generated::visage::tensorboard::v1 as tensorboard_v1;
/// The public API, package `visage.v1`.
pub use generated::visage::v1;
/// The worker protocol, package `visage.worker.v1`.
pub use generated::visage::worker::v1 as worker_v1;

#[allow(
    unreachable_pub,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    rustdoc::all,
    reason = "generated code"
)]
mod generated {
    pub mod inference {
        tonic::include_proto!("inference");
    }
    pub mod visage {
        pub mod v1 {
            tonic::include_proto!("visage.v1");
        }
        pub mod worker {
            pub mod v1 {
                tonic::include_proto!("visage.worker.v1");
            }
        }
        pub mod tensorboard {
            pub mod v1 {
                tonic::include_proto!("visage.tensorboard.v1");
            }
        }
    }
}

/// Protobuf's JSON form of a message of the public API, with the fields' names as in the `.proto`
/// and 64-bit integers as numbers.
pub fn to_json<M: prost::Message + prost::Name>(message: &M) -> serde_json::Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    dynamic(message)
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message without Any has a JSON form")
}

/// Reads what [`to_json`] wrote.
///
/// # Errors
/// A field or a value that the message does not have.
pub fn from_json<M: prost::Message + prost::Name + Default>(
    json: &serde_json::Value,
) -> Result<M, serde_json::Error> {
    Ok(typed(&descriptor::<M>().deserialize(json)?))
}

/// The message with those of the other's fields that it does not set. Messages inside of both are
/// joined likewise, except those of Google, which are one value each; a list that is not empty
/// stays as it is.
pub(crate) fn fill_unset<M: prost::Message + prost::Name + Default>(message: &M, other: &M) -> M {
    let mut filled = dynamic(message);
    fill(&mut filled, &dynamic(other));
    typed(&filled)
}

fn fill(message: &mut DynamicMessage, other: &DynamicMessage) {
    for (field, value) in other.fields() {
        if !message.has_field(&field) {
            message.set_field(&field, value.clone());
        } else if let Value::Message(inner) = value
            && inner.descriptor().package_name() != "google.protobuf"
            && let Value::Message(own) = message.get_field_mut(&field)
        {
            fill(own, inner);
        }
    }
}

fn descriptor<M: prost::Name>() -> MessageDescriptor {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(DESCRIPTOR).expect("the embedded descriptors were made by the build")
    });
    POOL.get_message_by_name(&M::full_name())
        .expect("every message of the API is in its descriptors")
}

fn dynamic<M: prost::Message + prost::Name>(message: &M) -> DynamicMessage {
    DynamicMessage::decode(descriptor::<M>(), message.encode_to_vec().as_slice())
        .expect("a message decodes by its own descriptor")
}

fn typed<M: prost::Message + Default>(message: &DynamicMessage) -> M {
    M::decode(prost::Message::encode_to_vec(message).as_slice())
        .expect("a message is decoded from its own descriptor")
}
