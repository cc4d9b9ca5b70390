//! What the decoder makes of blocks: the examples of RFC 7541, limits, garbage.

use super::*;

// The examples of RFC 7541 Appendix C

#[test]
fn literal_with_indexing() {
    // C.2.1
    let mut decoder = Decoder::new(4096);
    let block = hex("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    let field = header("custom-key", "custom-header");
    assert_eq!(decode(&mut decoder, &block), Ok(vec![field.clone()]));
    assert_eq!(decode(&mut decoder, &[0xbe]), Ok(vec![field]));
    assert_eq!(sizes(&mut decoder, &[0xbe]), [55]);
}

#[test]
fn literal_without_indexing() {
    // C.2.2
    let mut decoder = Decoder::new(4096);
    let block = hex("040c 2f73 616d 706c 652f 7061 7468");
    assert_eq!(decode(&mut decoder, &block), Ok(vec![path("/sample/path")]));
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(Error));
}

#[test]
fn literal_never_indexed() {
    // C.2.3
    let mut decoder = Decoder::new(4096);
    let block = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let fields = decode(&mut decoder, &block).unwrap();
    assert_eq!(fields, [header("password", "secret")]);
    assert!(matches!(&fields[0], Field::Header(_, value) if value.is_sensitive()));
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(Error));
}

#[test]
fn indexed_field() {
    // C.2.4
    assert_eq!(decode_new(&[0x82]), Ok(vec![Field::Method(Method::GET)]));
    assert_eq!(sizes(&mut Decoder::new(4096), &[0x82]), [42]);
}

fn check_requests(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    let start = |scheme: Scheme, at: Field| {
        let host = authority("www.example.com");
        vec![Field::Method(Method::GET), Field::Scheme(scheme), at, host]
    };
    let first = start(Scheme::HTTP, path("/"));
    let mut second = first.clone();
    second.push(header("cache-control", "no-cache"));
    let mut third = start(Scheme::HTTPS, path("/index.html"));
    third.push(header("custom-key", "custom-value"));

    assert_eq!(decode(&mut decoder, &hex(blocks[0])), Ok(first));
    assert_eq!(decode(&mut decoder, &hex(blocks[1])), Ok(second));
    assert_eq!(decode(&mut decoder, &hex(blocks[2])), Ok(third));
    assert_eq!(sizes(&mut decoder, &[0xbe, 0xbf, 0xc0]), [54, 53, 57]);
    assert_eq!(decode(&mut decoder, &[0xc1]), Err(Error));
}

#[test]
fn requests_without_huffman() {
    // C.3
    check_requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn requests_with_huffman() {
    // C.4
    check_requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

fn check_responses(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(256);
    let response = |status: u16, date: &str| {
        vec![
            Field::Status(StatusCode::from_u16(status).unwrap()),
            header("cache-control", "private"),
            header("date", date),
            header("location", "https://www.example.com"),
        ]
    };
    let mut third = response(200, "Mon, 21 Oct 2013 20:13:22 GMT");
    third.push(header("content-encoding", "gzip"));
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    third.push(header("set-cookie", cookie));

    let date = "Mon, 21 Oct 2013 20:13:21 GMT";
    assert_eq!(decode(&mut decoder, &hex(blocks[0])), Ok(response(302, date)));
    assert_eq!(sizes(&mut decoder, &[0xbe, 0xbf, 0xc0, 0xc1]), [63, 65, 52, 42]);
    assert_eq!(decode(&mut decoder, &hex(blocks[1])), Ok(response(307, date)));
    assert_eq!(sizes(&mut decoder, &[0xbe, 0xbf, 0xc0, 0xc1]), [42, 63, 65, 52]);
    assert_eq!(decode(&mut decoder, &hex(blocks[2])), Ok(third));
    assert_eq!(sizes(&mut decoder, &[0xbe, 0xbf, 0xc0]), [98, 52, 65]);
    assert_eq!(decode(&mut decoder, &[0xc1]), Err(Error));
}

#[test]
fn responses_without_huffman() {
    // C.5
    check_responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
    ]);
}

#[test]
fn responses_with_huffman() {
    // C.6
    check_responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

// What the examples leave out

#[test]
fn static_table_has_the_sizes_of_the_rfc() {
    let mut decoder = Decoder::new(4096);
    let total: usize = (1..=61)
        .flat_map(|index: u8| sizes(&mut decoder, &[0x80 | index]))
        .sum();
    // All names and values of Appendix A together have 684 bytes.
    assert_eq!(total, 61 * 32 + 684);
}

#[test]
fn index_out_of_bounds() {
    assert_eq!(decode_new(&[0x80]), Err(Error));
    assert_eq!(decode_new(&[0x81]), Ok(vec![Field::Malformed]));
    assert_eq!(decode_new(&[0x80 | 61]), Ok(vec![header("www-authenticate", "")]));
    assert_eq!(decode_new(&[0x80 | 62]), Err(Error));
    // The same as the name of a literal.
    assert_eq!(decode_new(&[0x7e, 1, b'x']), Err(Error));
    assert_eq!(
        decode_new(&[0x0f, 61 - 15, 1, b'x']),
        Ok(vec![header("www-authenticate", "x")])
    );
    assert_eq!(decode_new(&[0x0f, 62 - 15, 1, b'x']), Err(Error));
    assert_eq!(decode_new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Error));
}

#[test]
fn integers() {
    // C.1.2: 1337 with a prefix of five bits, as a table size.
    assert_eq!(decode_new(&[0x3f, 0x9a, 0x0a]), Ok(vec![]));
    assert_eq!(decode(&mut Decoder::new(1336), &[0x3f, 0x9a, 0x0a]), Err(Error));
    assert_eq!(decode(&mut Decoder::new(1337), &[0x3f, 0x9a, 0x0a]), Ok(vec![]));
    // Zeros at the end are allowed, but not without end.
    assert_eq!(decode_new(&[0x3f, 0x80, 0x80, 0x80, 0x80, 0x00]), Ok(vec![]));
    assert_eq!(
        decode_new(&[0x3f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        Err(Error)
    );
    // 2^32 and more must not wrap around to a size that is fine.
    assert_eq!(decode_new(&[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f]), Err(Error));
    assert_eq!(decode_new(&[0x3f, 0xff, 0xff, 0xff, 0xff, 0x7f]), Err(Error));
    assert_eq!(
        decode_new(&[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        Err(Error)
    );
    assert_eq!(decode_new(&[0x3f]), Err(Error));
    assert_eq!(decode_new(&[0x3f, 0x80]), Err(Error));
}

#[test]
fn every_truncation_of_a_literal_fails() {
    let block = literal(b"name", b"value");
    for end in 1..block.len() {
        assert_eq!(decode_new(&block[..end]), Err(Error), "{end}");
    }
    assert_eq!(decode_new(&block), Ok(vec![header("name", "value")]));
}

#[test]
fn size_updates_only_at_the_start() {
    assert_eq!(decode_new(&[0x20, 0x3f, 0xe1, 0x1f, 0x82]).unwrap().len(), 1);
    assert_eq!(decode_new(&[0x3f, 0xe2, 0x1f]), Err(Error), "4097");
    assert_eq!(decode_new(&[0x82, 0x20]), Err(Error));
}

#[test]
fn size_update_evicts() {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &[literal(b"a", b"1"), literal(b"b", b"2")].concat()).unwrap();
    // 34 bytes: room for one.
    assert_eq!(decode(&mut decoder, &[0x3f, 3, 0xbe]), Ok(vec![header("b", "2")]));
    assert_eq!(decode(&mut decoder, &[0xbf]), Err(Error));
    assert_eq!(decode(&mut decoder, &[0x3f, 2]), Ok(vec![]));
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(Error));
}

#[test]
fn too_large_an_entry_empties_the_table() {
    let mut decoder = Decoder::new(64);
    decode(&mut decoder, &literal(b"a", b"1")).unwrap();
    assert!(decode(&mut decoder, &[0xbe]).is_ok());
    assert!(decode(&mut decoder, &literal(b"name", &[b'x'; 29])).is_ok());
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(Error));
    // One that fits exactly stays.
    assert!(decode(&mut decoder, &literal(b"name", &[b'x'; 28])).is_ok());
    assert_eq!(sizes(&mut decoder, &[0xbe]), [64]);
}

#[test]
fn name_of_an_entry_that_its_own_insertion_evicts() {
    let mut decoder = Decoder::new(64);
    decode(&mut decoder, &literal(b"name", b"1")).unwrap();
    assert_eq!(
        decode(&mut decoder, &[0x7e, 1, b'2', 0xbe]),
        Ok(vec![header("name", "2"); 2])
    );
    assert_eq!(decode(&mut decoder, &[0xbf]), Err(Error));
}

#[test]
fn malformed_fields_keep_their_place() {
    let malformed: [(&[u8], &[u8]); 22] = [
        (b"", b"x"),
        (b":", b"x"),
        (b":unknown", b"x"),
        (b"Upper", b"x"),
        (b"sp ace", b"x"),
        (b"name:", b"x"),
        (b"name", b"\r\n"),
        (b"name", b"\0"),
        (b":method", b""),
        (b":method", b"G T"),
        (b":path", b""),
        (b":path", b"path"),
        (b":path", b"?query"),
        (b":path", b"/a#fragment"),
        (b":path", b"**"),
        (b":scheme", b""),
        (b":scheme", b"1"),
        (b":authority", b""),
        (b":authority", b"host/path"),
        (b":status", b"20"),
        (b":status", b"0200"),
        (b":protocol", b"web socket"),
    ];
    for (name, value) in malformed {
        let mut decoder = Decoder::new(4096);
        let block = [literal(b"before", b"1"), literal(name, value), vec![0xbe, 0xbf]].concat();
        let before = header("before", "1");
        let expected = vec![before.clone(), Field::Malformed, Field::Malformed, before];
        assert_eq!(decode(&mut decoder, &block), Ok(expected), "{name:?}: {value:?}");
        let size = name.len() + value.len() + 32;
        assert_eq!(sizes(&mut decoder, &[0xbe]), [size]);
        // A field that refers to the name counts it, too.
        assert_eq!(sizes(&mut decoder, &[0x0f, 62 - 15, 0]), [size - value.len()]);
    }
}

#[test]
fn name_of_a_malformed_entry_is_usable() {
    let mut decoder = Decoder::new(4096);
    decode(
        &mut decoder,
        &[literal(b":path", b""), literal(b"name", b"\n")].concat(),
    )
    .unwrap();
    let block = [0x0f, 62 - 15, 1, b'x', 0x0f, 63 - 15, 1, b'*'];
    assert_eq!(
        decode(&mut decoder, &block),
        Ok(vec![header("name", "x"), path("*")])
    );
}

#[test]
fn pseudo_fields() {
    let fields = [
        Field::Method("M-SEARCH".parse().unwrap()),
        Field::Scheme("coap".parse().unwrap()),
        authority("[::1]:80"),
        path("/a?b=c"),
        Field::Status(StatusCode::IM_A_TEAPOT),
        Field::Protocol(Bytes::from_static(b"websocket")),
    ];
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    for _ in 0..3 {
        let block = encode(&mut encoder, &fields);
        assert_eq!(decode(&mut decoder, &block).unwrap(), fields);
    }
    assert_eq!(encode(&mut encoder, &fields).len(), fields.len());
}

#[test]
fn garbage_never_panics() {
    let mut random = fastrand::Rng::with_seed(7541);
    let mut decoded = 0;
    for _ in 0..100_000 {
        let mut decoder = Decoder::new(random.usize(0..300));
        for _ in 0..3 {
            let mut block = vec![0; random.usize(0..40)];
            random.fill(&mut block);
            decoded += usize::from(decoder.decode(&block, |_, _| {}).is_ok());
        }
    }
    assert!(decoded > 1000, "{decoded}");
}
