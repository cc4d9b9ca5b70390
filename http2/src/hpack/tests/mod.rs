//! Helpers for the tests of both directions.

mod decoder;
mod encoder;

use bytes::BytesMut;
use http::header;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn header(name: &str, value: &str) -> Field {
    Field::Header(name.parse().unwrap(), value.parse().unwrap())
}

fn path(value: &str) -> Field {
    Field::Path(value.parse().unwrap())
}

fn authority(value: &str) -> Field {
    Field::Authority(value.parse().unwrap())
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, Error> {
    let mut fields = Vec::new();
    decoder.decode(block, |field, _| fields.push(field))?;
    Ok(fields)
}

/// Decodes with a fresh decoder.
fn decode_new(block: &[u8]) -> Result<Vec<Field>, Error> {
    decode(&mut Decoder::new(4096), block)
}

fn sizes(decoder: &mut Decoder, block: &[u8]) -> Vec<usize> {
    let mut sizes = Vec::new();
    decoder.decode(block, |_, size| sizes.push(size)).unwrap();
    sizes
}

/// A literal with incremental indexing, its strings shorter than 127 bytes.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x40, u8::try_from(name.len()).unwrap()];
    block.extend(name);
    block.push(u8::try_from(value.len()).unwrap());
    block.extend(value);
    block
}

fn put(encoder: &mut Encoder, fields: &[Field], out: &mut BytesMut) {
    for field in fields {
        match field {
            Field::Method(value) => encoder.pseudo(Pseudo::Method, value.as_str().as_bytes(), out),
            Field::Scheme(value) => encoder.pseudo(Pseudo::Scheme, value.as_str().as_bytes(), out),
            Field::Authority(value) => encoder.pseudo(Pseudo::Authority, value.as_str().as_bytes(), out),
            Field::Path(value) => encoder.pseudo(Pseudo::Path, value.as_str().as_bytes(), out),
            Field::Status(value) => encoder.pseudo(Pseudo::Status, value.as_str().as_bytes(), out),
            Field::Protocol(value) => encoder.pseudo(Pseudo::Protocol, value, out),
            Field::Header(name, value) => encoder.field(name, value, out),
            Field::Malformed => panic!("not to be sent"),
        }
    }
}

fn encode(encoder: &mut Encoder, fields: &[Field]) -> BytesMut {
    let mut out = BytesMut::new();
    encoder.begin(&mut out);
    put(encoder, fields, &mut out);
    out
}
