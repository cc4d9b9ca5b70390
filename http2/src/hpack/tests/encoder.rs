//! What the encoder sends by index, in full and never by index; and that the decoder reads it.

use super::*;

/// It has no place in HTTP/2 (RFC 9113 §8.2.2).
const TRANSFER_ENCODING: u8 = 57;

#[test]
fn everything_in_the_static_table_is_one_byte() {
    let mut decoder = Decoder::new(4096);
    for index in (2..=61).filter(|index| *index != TRANSFER_ENCODING) {
        let fields = decode(&mut decoder, &[0x80 | index]).unwrap();
        assert_eq!(
            *encode(&mut Encoder::new(), &fields),
            [0x80 | index],
            "{fields:?}"
        );
    }
}

#[test]
fn names_of_the_static_table_are_sent_by_index() {
    for index in (15..=61).filter(|index| *index != TRANSFER_ENCODING) {
        let Field::Header(name, _) = decode_new(&[0x80 | index]).unwrap().remove(0) else {
            panic!()
        };
        let block = encode(&mut Encoder::new(), &[header(name.as_str(), "x")]);
        assert!(block.len() <= 4, "{name}");
        assert_eq!(decode_new(&block), Ok(vec![header(name.as_str(), "x")]));
    }
}

#[test]
fn indexed_at_first_sight() {
    let mut encoder = Encoder::new();
    let fields = [
        authority("host"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    let first = [
        &b"\x41\x04host\x5f\x10application/grpc"[..],
        &literal(b"te", b"trailers"),
    ]
    .concat();
    assert_eq!(*encode(&mut encoder, &fields), first);
    assert_eq!(*encode(&mut encoder, &fields), [0xc0, 0xbf, 0xbe]);
}

#[test]
fn volatile_fields_are_indexed_at_second_sight() {
    let volatile = [
        path("/a"),
        header("content-length", "17"),
        header("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        header("etag", "\"x\""),
        header("location", "/b"),
    ];
    for field in volatile {
        let mut encoder = Encoder::new();
        let mut block = || encode(&mut encoder, std::slice::from_ref(&field))[0];
        assert_eq!(block() & 0xf0, 0x00, "{field:?}");
        assert_eq!(block() & 0xc0, 0x40, "{field:?}");
        assert_eq!(block(), 0xbe, "{field:?}");
    }
}

#[test]
fn a_name_with_changing_values_is_volatile() {
    let mut encoder = Encoder::new();
    let mut block = |value: &str| encode(&mut encoder, &[header("traceparent", value)]);
    assert_eq!(*block("1"), *literal(b"traceparent", b"1"));
    // By the index of the name, but not indexed before it comes again.
    assert_eq!(*block("2"), [0x0f, 62 - 15, 1, b'2']);
    assert_eq!(*block("3"), [0x0f, 62 - 15, 1, b'3']);
    assert_eq!(*block("1"), [0xbe]);
    assert_eq!(*block("2"), [0x7e, 1, b'2']);
    assert_eq!(*block("2"), [0xbe]);
    assert_eq!(*block("1"), [0xbf]);
}

#[test]
fn secrets_are_not_indexed() {
    for name in ["authorization", "proxy-authorization", "cookie", "set-cookie"] {
        let mut encoder = Encoder::new();
        let first = encode(&mut encoder, &[header(name, "secret")]);
        assert_eq!(first[0] & 0xf0, 0x00, "{name}");
        for _ in 0..3 {
            assert_eq!(encode(&mut encoder, &[header(name, "secret")]), first);
        }
        assert_eq!(decode_new(&first), Ok(vec![header(name, "secret")]));
    }
}

#[test]
fn sensitive_values_are_never_indexed() {
    let mut value = HeaderValue::from_static("secret");
    value.set_sensitive(true);
    let mut encoder = Encoder::new();
    // Not even if they are in the table already.
    encode(&mut encoder, &[header("x-token", "secret")]);
    for name in [
        header::AUTHORIZATION,
        header::ACCEPT,
        HeaderName::from_static("x-token"),
    ] {
        let field = Field::Header(name.clone(), value.clone());
        for _ in 0..3 {
            let block = encode(&mut encoder, std::slice::from_ref(&field));
            assert_eq!(block[0] & 0xf0, 0x10, "{name}");
        }
    }
    // The name may be indexed, and a decoder keeps the mark for the next hop.
    let block = encode(&mut encoder, &[Field::Header(header::AUTHORIZATION, value)]);
    assert_eq!(*block, *b"\x1f\x08\x06secret");
    let fields = decode_new(&block).unwrap();
    assert!(matches!(&fields[0], Field::Header(_, value) if value.is_sensitive()));
    assert_eq!(encode(&mut Encoder::new(), &fields), block);
}

#[test]
fn large_fields_are_not_indexed() {
    let mut encoder = Encoder::new();
    let largest = "x".repeat(3072 - 32 - 4);
    assert_eq!(encode(&mut encoder, &[header("name", &largest)])[0], 0x40);
    let larger = largest + "x";
    for _ in 0..3 {
        assert_eq!(encode(&mut Encoder::new(), &[header("name", &larger)])[0], 0x00);
    }
}

#[test]
fn size_updates_are_sent() {
    let updates = |sizes: &[usize]| {
        let mut encoder = Encoder::new();
        sizes.iter().for_each(|size| encoder.resize(*size));
        let block = encode(&mut encoder, &[]);
        assert!(encode(&mut encoder, &[]).is_empty(), "only once");
        block.to_vec()
    };
    assert_eq!(updates(&[]), []);
    assert_eq!(updates(&[4096]), []);
    assert_eq!(updates(&[1 << 20]), []);
    assert_eq!(updates(&[0]), [0x20]);
    assert_eq!(updates(&[100]), [0x3f, 69]);
    assert_eq!(updates(&[100, 30]), [0x3e]);
    assert_eq!(updates(&[30, 0, 100]), [0x20, 0x3f, 69]);
    assert_eq!(updates(&[30, 1 << 20]), [0x3e, 0x3f, 0xe1, 0x1f]);
}

#[test]
fn resize_evicts() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    let fields = [header("a", "1"), header("b", "2")];
    assert_eq!(
        decode(&mut decoder, &encode(&mut encoder, &fields)).unwrap(),
        fields
    );
    encoder.resize(50);
    encoder.resize(4096);
    // What the small size evicted is not there any more, although there is room again.
    let block = encode(&mut encoder, &fields);
    assert_eq!(
        *block,
        [&b"\x3f\x13\x3f\xe1\x1f"[..], &literal(b"a", b"1"), b"\xbf"].concat()
    );
    assert_eq!(decode(&mut decoder, &block).unwrap(), fields);
}

#[test]
fn an_empty_table_takes_no_entries() {
    let mut encoder = Encoder::new();
    encoder.resize(0);
    encode(&mut encoder, &[]);
    for _ in 0..3 {
        assert_eq!(encode(&mut encoder, &[header("a", "1")])[0], 0x00);
    }
}

/// A field of few enough names and values that many repeat, and enough that entries get evicted.
fn random_field(random: &mut fastrand::Rng) -> Field {
    let value = |random: &mut fastrand::Rng| {
        let letter = char::from(random.u8(b'a'..=b'z'));
        letter
            .to_string()
            .repeat(random.usize(1..4) * random.choice([1, 1, 9, 100]).unwrap())
    };
    match random.u8(0..12) {
        0 => Field::Method(random.choice([Method::GET, Method::PUT]).unwrap()),
        1 => path(&format!("/{}", value(random))),
        2 => authority(&value(random)),
        3 => Field::Status(StatusCode::from_u16(random.u16(195..215)).unwrap()),
        4 => Field::Protocol(value(random).into()),
        5 => Field::Scheme(random.choice([Scheme::HTTP, Scheme::HTTPS]).unwrap()),
        6..9 => {
            let names = [
                "accept-encoding",
                "date",
                "cookie",
                "etag",
                "user-agent",
                "accept",
            ];
            let value = random.choice(["", "gzip, deflate", "other", "1", "2"]).unwrap();
            header(random.choice(names).unwrap(), value)
        }
        _ => {
            let name = format!("x-{}", random.u8(0..40));
            let mut value = HeaderValue::try_from(value(random)).unwrap();
            value.set_sensitive(random.u8(0..10) == 0);
            Field::Header(name.parse().unwrap(), value)
        }
    }
}

fn is_sensitive(field: &Field) -> bool {
    matches!(field, Field::Header(_, value) if value.is_sensitive())
}

#[test]
fn round_trips() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        let (mut sent, mut bytes) = (0, 0);
        for _ in 0..300 {
            if random.u8(0..20) == 0 {
                (0..random.u8(1..4)).for_each(|_| encoder.resize(random.usize(0..6000)));
            }
            let count = random.usize(0..15);
            let fields: Vec<Field> = (0..count).map(|_| random_field(&mut random)).collect();
            let block = encode(&mut encoder, &fields);
            let decoded = decode(&mut decoder, &block).unwrap();
            assert_eq!(decoded, fields, "seed {seed}");
            assert!(
                decoded
                    .iter()
                    .map(is_sensitive)
                    .eq(fields.iter().map(is_sensitive))
            );
            sizes_of(&fields, &mut sent);
            bytes += block.len();
        }
        assert!(bytes < sent, "seed {seed}: {bytes} for {sent}");
    }
}

/// Adds up the names and values.
fn sizes_of(fields: &[Field], sum: &mut usize) {
    let mut plain = Encoder::new();
    plain.resize(0);
    *sum += encode(&mut plain, fields).len();
}

#[test]
fn more_fields_than_slots() {
    // Far more fields than slots, again and again: each must be decoded as what it is.
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    for round in 0..4 {
        for name in 0..1000 {
            let fields = [
                header(&format!("n{name}"), "v"),
                header(&format!("m{}", name % 7), "w"),
            ];
            let block = encode(&mut encoder, &fields);
            assert_eq!(decode(&mut decoder, &block).unwrap(), fields, "{round} {name}");
        }
    }
}
