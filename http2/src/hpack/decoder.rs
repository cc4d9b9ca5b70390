//! Decoding of header blocks (RFC 7541 §3 and §6).

use bytes::Bytes;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::table::{FIELDS, FIRST_DYNAMIC, Ring};
use super::{ENTRY_OVERHEAD, Error, Field, Pseudo, huffman};

/// The decoding side of a connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Ring<Entry>,
    /// The most that the peer may set the table to: what we announced.
    limit: usize,
}

impl Decoder {
    /// A decoder for a peer to which we announce this SETTINGS_HEADER_TABLE_SIZE.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            table: Ring::new(size),
            limit: size,
        }
    }

    /// Decodes one whole header block, the fragments of its CONTINUATIONs included. Calls `each` with
    /// every field and its size (RFC 7541 §4.1) in order. After an error the connection must end, as
    /// the table is out of step with the peer's (RFC 9113 §4.3).
    pub(crate) fn decode(&mut self, block: &[u8], mut each: impl FnMut(Field, usize)) -> Result<(), Error> {
        let mut input = Input { rest: block };
        // Only Huffman-coded strings need it.
        let mut scratch = Vec::new();
        // A size update is allowed at the start of a block only (RFC 7541 §4.2).
        let mut started = false;
        while let Some((&first, rest)) = input.rest.split_first() {
            input.rest = rest;
            let kind = match first {
                0x80.. => {
                    let (field, size) = self.indexed(input.integer(first, 7)?)?;
                    each(field.clone(), size);
                    started = true;
                    continue;
                }
                0x40.. => Literal::Indexed,
                0x20.. if started => return Err(Error),
                0x20.. => {
                    self.resize(input.integer(first, 5)?)?;
                    continue;
                }
                0x10.. => Literal::NeverIndexed,
                _ => Literal::NotIndexed,
            };
            let (field, size) = self.literal(&mut input, kind, first, &mut scratch)?;
            each(field, size);
            started = true;
        }
        Ok(())
    }

    /// A field from one of the tables (RFC 7541 §6.1), and its size.
    #[inline]
    fn indexed(&self, index: usize) -> Result<(&Field, usize), Error> {
        if let Some(age) = index.checked_sub(FIRST_DYNAMIC) {
            let (entry, size) = self.table.get(age).ok_or(Error)?;
            return Ok((entry.field(), *size));
        }
        // Index zero wraps around, out of the table.
        let field = FIELDS.get(index.wrapping_sub(1)).ok_or(Error)?;
        match field {
            Field::Header(name, _) if *name == TRANSFER_ENCODING => {
                Ok((&Field::Malformed, static_size(field)))
            }
            _ => Ok((field, static_size(field))),
        }
    }

    /// A literal field (RFC 7541 §6.2).
    fn literal(
        &mut self,
        input: &mut Input<'_>,
        kind: Literal,
        first: u8,
        scratch: &mut Vec<u8>,
    ) -> Result<(Field, usize), Error> {
        let prefix = if kind == Literal::Indexed { 6 } else { 4 };
        let name = match input.integer(first, prefix)? {
            0 => Name::parse(input.string(scratch)?),
            index => self.name(index)?,
        };
        let value = input.string(scratch)?;
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let mut field = name.field(value);
        if kind == Literal::NeverIndexed
            && let Field::Header(_, value) = &mut field
        {
            value.set_sensitive(true);
        }
        if kind == Literal::Indexed {
            let entry = match &field {
                Field::Malformed => Entry::Malformed(name),
                field => Entry::Valid(field.clone()),
            };
            self.table.insert(entry, size);
        }
        Ok((field, size))
    }

    fn name(&self, index: usize) -> Result<Name, Error> {
        if let Some(age) = index.checked_sub(FIRST_DYNAMIC) {
            return self.table.get(age).map(|(entry, _)| entry.name()).ok_or(Error);
        }
        FIELDS.get(index.wrapping_sub(1)).map(static_name).ok_or(Error)
    }

    /// A dynamic table size update (RFC 7541 §6.3).
    fn resize(&mut self, size: usize) -> Result<(), Error> {
        if size > self.limit {
            return Err(Error);
        }
        self.table.resize(size);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Literal {
    Indexed,
    NotIndexed,
    NeverIndexed,
}

/// The name of a field, known to us or not.
#[derive(Clone)]
enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
    /// A name HTTP/2 does not allow. Only its length still counts, for the sizes of entries.
    Malformed(usize),
}

impl Name {
    fn parse(name: &[u8]) -> Self {
        if name.starts_with(b":") {
            return Pseudo::parse(name).map_or(Self::Malformed(name.len()), Self::Pseudo);
        }
        HeaderName::from_lowercase(name).map_or(Self::Malformed(name.len()), Self::Header)
    }

    fn len(&self) -> usize {
        match self {
            Self::Pseudo(pseudo) => pseudo.as_str().len(),
            Self::Header(name) => name.as_str().len(),
            Self::Malformed(length) => *length,
        }
    }

    /// Parses a value for this name. The field gets its own copy of the bytes: a small entry of the
    /// table must not keep a large block in memory.
    fn field(&self, value: &[u8]) -> Field {
        match self {
            Self::Pseudo(pseudo) => pseudo_field(*pseudo, value).unwrap_or(Field::Malformed),
            Self::Header(name) if is_misplaced(name, value) => Field::Malformed,
            Self::Header(name) => HeaderValue::from_bytes(value)
                .map_or(Field::Malformed, |value| Field::Header(name.clone(), value)),
            Self::Malformed(_) => Field::Malformed,
        }
    }
}

/// Whether a field concerns one HTTP/1 connection, and so has no place in HTTP/2 (RFC 9113 §8.2.2).
fn is_misplaced(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        CONNECTION | TRANSFER_ENCODING | UPGRADE => true,
        TE => value != b"trailers",
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

/// The name of an entry of the static table.
fn static_name(field: &Field) -> Name {
    // The only entry without a valid value is that of `:authority`.
    name_of(field).unwrap_or(Name::Pseudo(Pseudo::Authority))
}

/// The size of an entry of the static table (RFC 7541 §4.1).
fn static_size(field: &Field) -> usize {
    let (name, value) = match field {
        Field::Method(method) => (Pseudo::Method.as_str(), method.as_str().len()),
        Field::Scheme(scheme) => (Pseudo::Scheme.as_str(), scheme.as_str().len()),
        Field::Path(path) => (Pseudo::Path.as_str(), path.as_str().len()),
        Field::Status(status) => (Pseudo::Status.as_str(), status.as_str().len()),
        Field::Header(name, value) => (name.as_str(), value.len()),
        // As above, and the static table has no `:protocol`.
        Field::Authority(_) | Field::Protocol(_) | Field::Malformed => (Pseudo::Authority.as_str(), 0),
    };
    name.len() + value + ENTRY_OVERHEAD
}

fn name_of(field: &Field) -> Option<Name> {
    Some(match field {
        Field::Method(_) => Name::Pseudo(Pseudo::Method),
        Field::Scheme(_) => Name::Pseudo(Pseudo::Scheme),
        Field::Authority(_) => Name::Pseudo(Pseudo::Authority),
        Field::Path(_) => Name::Pseudo(Pseudo::Path),
        Field::Status(_) => Name::Pseudo(Pseudo::Status),
        Field::Protocol(_) => Name::Pseudo(Pseudo::Protocol),
        Field::Header(name, _) => Name::Header(name.clone()),
        Field::Malformed => return None,
    })
}

fn pseudo_field(pseudo: Pseudo, value: &[u8]) -> Option<Field> {
    match pseudo {
        Pseudo::Method => Method::from_bytes(value).ok().map(Field::Method),
        Pseudo::Scheme if value.first().is_some_and(u8::is_ascii_alphabetic) => {
            Scheme::try_from(value).ok().map(Field::Scheme)
        }
        Pseudo::Scheme => None,
        Pseudo::Authority => Authority::try_from(value).ok().map(Field::Authority),
        Pseudo::Path => path(value).map(Field::Path),
        Pseudo::Status => StatusCode::from_bytes(value).ok().map(Field::Status),
        Pseudo::Protocol => is_protocol(value).then(|| Field::Protocol(Bytes::copy_from_slice(value))),
    }
}

/// `*`, or a path with an optional query (RFC 9113 §8.3.1).
fn path(value: &[u8]) -> Option<PathAndQuery> {
    if value != b"*" && !value.starts_with(b"/") {
        return None;
    }
    let path = PathAndQuery::try_from(value).ok()?;
    // A fragment is no part of a request, and the parser would silently cut it off.
    (path.as_str().len() == value.len()).then_some(path)
}

/// An upgrade token (RFC 9110 §7.8): a token, which may have a version after a slash.
fn is_protocol(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    !value.is_empty() && value.iter().all(allowed)
}

/// An entry of the dynamic table.
enum Entry {
    Valid(Field),
    /// The name stays usable: the next field may refer to it, with a value that is fine.
    Malformed(Name),
}

impl Entry {
    #[inline]
    fn field(&self) -> &Field {
        match self {
            Self::Valid(field) => field,
            Self::Malformed(_) => &Field::Malformed,
        }
    }

    fn name(&self) -> Name {
        match self {
            // A valid field has a name.
            Self::Valid(field) => name_of(field).unwrap_or(Name::Malformed(0)),
            Self::Malformed(name) => name.clone(),
        }
    }
}

/// What is left of a header block.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.rest.split_first().ok_or(Error)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// An integer that starts in the low `prefix` bits of `first` (RFC 7541 §5.1).
    #[inline]
    fn integer(&mut self, first: u8, prefix: u32) -> Result<usize, Error> {
        let mask = (1 << prefix) - 1;
        let value = first & mask;
        if value < mask {
            Ok(usize::from(value))
        } else {
            self.long_integer(value)
        }
    }

    /// Five more bytes are enough for any size we could accept; a longer form is an attack.
    fn long_integer(&mut self, start: u8) -> Result<usize, Error> {
        let mut value = u64::from(start);
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let value = u32::try_from(value).map_err(|_| Error)?;
                return usize::try_from(value).map_err(|_| Error);
            }
        }
        Err(Error)
    }

    /// A string literal (RFC 7541 §5.2), as it is in the block or decoded into `scratch`.
    fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error>
    where
        'a: 's,
    {
        let first = self.byte()?;
        let length = self.integer(first, 7)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Error)?;
        self.rest = rest;
        if first < 0x80 {
            return Ok(string);
        }
        scratch.clear();
        huffman::decode(string, scratch)?;
        Ok(scratch)
    }
}
