//! The transport header, against bytes that Google's Python implementation of protobuf wrote (7.x, `SerializeToString`).

use outrigger_proto::transport_header::session_protocol::{Http1, Http2, Kind};
use outrigger_proto::transport_header::{Header, SessionProtocol};
use prost::Message;

fn header(port: i32, name: &str, kind: Option<Kind>) -> Header {
    Header {
        port,
        name: name.to_owned(),
        session_protocol: kind.map(|kind| SessionProtocol { kind: Some(kind) }),
    }
}

#[test]
fn headers_are_the_bytes_of_an_independent_encoder() {
    let http2_to_a_name = b"\x08\xbb\x03\x12\x1aweb.demo.svc.cluster.local\x1a\x02\x12\x00".as_slice();
    let golden = [
        (header(8080, "", None), b"\x08\x90\x3f".as_slice()),
        (
            header(8080, "", Some(Kind::Http1(Http1 {}))),
            b"\x08\x90\x3f\x1a\x02\x0a\x00",
        ),
        (
            header(443, "web.demo.svc.cluster.local", Some(Kind::Http2(Http2 {}))),
            http2_to_a_name,
        ),
        (
            header(-1, "", None),
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (header(0, "\u{e9}", None), b"\x12\x02\xc3\xa9"),
        (header(0, "", None), b""),
    ];
    for (header, bytes) in golden {
        assert_eq!(header.encode_to_vec(), bytes);
        assert_eq!(Header::decode(bytes).unwrap(), header);
    }
}
