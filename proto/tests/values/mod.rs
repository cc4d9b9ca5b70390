//! Random values of any message of the contract, made by walking its descriptor.

use std::path::{Path, PathBuf};

use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Fields from this number on are ours alone.
pub(crate) const FIRST_EXTENSION: u32 = 50_000;

/// Messages nested deeper than this stay empty.
const DEPTH: usize = 6;

/// The descriptors of all `.proto` files in a directory.
pub(crate) fn pool(dir: &Path) -> DescriptorPool {
    let entries = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "proto"))
        .collect();
    let descriptors = protox::compile(&files, [dir]).expect("the contract compiles");
    DescriptorPool::from_file_descriptor_set(descriptors).expect("it is complete")
}

/// Random bytes that make a value; past the end all is zero, which leaves fields out.
pub(crate) struct Tape<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// Fields from this number on are left out.
    end: u32,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            end: u32::MAX,
        }
    }

    /// Values of which Linkerd knows every field.
    #[allow(dead_code, reason = "one of the tests compares with Linkerd")]
    pub(crate) fn without_extensions(bytes: &'a [u8]) -> Self {
        Self {
            end: FIRST_EXTENSION,
            ..Self::new(bytes)
        }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([0; 8].map(|_: u8| self.byte()))
    }

    fn text(&mut self) -> String {
        let length = self.byte() % 8;
        (0..length).map(|_| char::from(self.byte())).collect()
    }
}

/// A value of the message, of which `depth` says how deep it is nested.
pub(crate) fn random(descriptor: MessageDescriptor, tape: &mut Tape<'_>, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if field.number() < tape.end && depth < DEPTH && tape.byte() % 3 == 1 {
            fill(&mut message, &field, tape, depth);
        }
    }
    message
}

/// Sets one field.
#[allow(dead_code, reason = "one of the tests fills single fields")]
pub(crate) fn fill(message: &mut DynamicMessage, field: &FieldDescriptor, tape: &mut Tape<'_>, depth: usize) {
    let value = if field.is_map() {
        let entry = |tape: &mut Tape<'_>| (MapKey::String(tape.text()), Value::String(tape.text()));
        Value::Map((0..=tape.byte() % 3).map(|_| entry(tape)).collect())
    } else if field.is_list() {
        Value::List(
            (0..=tape.byte() % 3)
                .map(|_| single(field, tape, depth))
                .collect(),
        )
    } else {
        single(field, tape, depth)
    };
    message.set_field(field, value);
}

/// Floats are made from integers: a NaN is not equal to itself.
fn single(field: &FieldDescriptor, tape: &mut Tape<'_>, depth: usize) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(tape.byte() % 2 == 1),
        Kind::Int32 => Value::I32(tape.word() as i32),
        Kind::Int64 => Value::I64(tape.word() as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(tape.word() as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(tape.word()),
        Kind::Float => Value::F32(f32::from(tape.byte())),
        Kind::Double => Value::F64(f64::from(tape.byte())),
        Kind::String => Value::String(tape.text()),
        Kind::Bytes => Value::Bytes(tape.word().to_le_bytes().to_vec().into()),
        Kind::Enum(_) => Value::EnumNumber((tape.byte() % 12).into()),
        Kind::Message(descriptor) => Value::Message(random(descriptor, tape, depth + 1)),
        other => panic!("the contract has no {other:?} so far: extend this test"),
    }
}
