//! Messages of the API as JSON, with the field names of the `.proto` files.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

use crate::proto;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(proto::DESCRIPTOR).expect("the build generated the descriptors")
});

pub(crate) fn descriptor(message: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("visage.v1.{message}"))
        .expect("callers name messages of visage.v1")
}

pub(crate) fn enum_descriptor(name: &str) -> EnumDescriptor {
    POOL.get_enum_by_name(&format!("visage.v1.{name}"))
        .expect("callers name enums of visage.v1")
}

/// All enums of the API.
pub(crate) fn enum_descriptors() -> impl Iterator<Item = EnumDescriptor> {
    POOL.all_enums()
        .filter(|found| found.package_name() == "visage.v1")
}

/// The message as JSON: 64-bit integers as numbers, fields without presence also when zero.
pub(crate) fn value(type_name: &str, message: &impl Message) -> Value {
    let descriptor = descriptor(type_name);
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("the message was encoded from the same descriptors");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("every message has a JSON form")
}
