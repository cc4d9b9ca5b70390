//! Encoding of header blocks (RFC 7541 §6).
//!
//! Strings are sent as they are, never Huffman-coded: that would cost both sides more time than the
//! bytes are worth, and the table makes what is repeated small anyway.

use std::sync::LazyLock;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};

use super::table::{FIELDS, FIRST_DYNAMIC, Ring};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Field, Pseudo};

/// The patterns that start a representation (RFC 7541 §6.1 to §6.3).
const INDEXED_FIELD: u8 = 0x80;
const INDEXED: Literal = Literal {
    pattern: 0x40,
    prefix: 6,
};
const SIZE_UPDATE: u8 = 0x20;
const NEVER_INDEXED: Literal = Literal {
    pattern: 0x10,
    prefix: 4,
};
const NOT_INDEXED: Literal = Literal {
    pattern: 0x00,
    prefix: 4,
};

/// The encoding side of a connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Ring<Entry>,
    /// Where to look for entries. Like the table, allocated when there is something to put in.
    slots: Option<Box<Slots>>,
    /// The smallest size the table was set to since the last block (RFC 7541 §4.2).
    lowest: Option<usize>,
}

impl Encoder {
    /// An encoder with the table size that every connection starts with.
    pub(crate) fn new() -> Self {
        Self {
            table: Ring::new(DEFAULT_TABLE_SIZE),
            slots: None,
            lowest: None,
        }
    }

    /// The peer announced this SETTINGS_HEADER_TABLE_SIZE. We never use more than the default.
    pub(crate) fn resize(&mut self, size: usize) {
        let size = size.min(DEFAULT_TABLE_SIZE);
        if size != self.table.max() {
            self.lowest = Some(self.lowest.map_or(size, |lowest| lowest.min(size)));
            self.table.resize(size);
            if size == 0 {
                self.slots = None;
            }
        }
    }

    /// Starts a block. Announces the changes of the table size since the last one (RFC 7541 §4.2).
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        if let Some(lowest) = self.lowest.take() {
            let current = self.table.max();
            if lowest < current {
                put_integer(lowest, 5, SIZE_UPDATE, out);
            }
            put_integer(current, 5, SIZE_UPDATE, out);
        }
    }

    /// Writes a pseudo-field. They come before all others (RFC 9113 §8.3).
    pub(crate) fn pseudo(&mut self, name: Pseudo, value: &[u8], out: &mut BytesMut) {
        if let Some(index) = static_pseudo(name, value) {
            return out.extend_from_slice(&[INDEXED_FIELD | index]);
        }
        self.write(Name::Pseudo(name), value, out);
    }

    /// Writes a regular field.
    #[inline]
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
        if value.is_sensitive() {
            return self.write_sensitive(name, value, out);
        }
        self.write(Name::Header(name), value.as_bytes(), out);
    }

    // Inlined, and so compiled for each kind of name.
    #[inline(always)]
    fn write(&mut self, name: Name<'_>, value: &[u8], out: &mut BytesMut) {
        let hash = Hash::new(name.as_str(), value);
        match self.find(name, value, hash) {
            Some(index) => put_index(index, out),
            None => self.write_new(name, value, hash, out),
        }
    }

    /// Writes a field that is not in the dynamic table.
    #[inline(never)]
    fn write_new(&mut self, name: Name<'_>, value: &[u8], hash: Hash, out: &mut BytesMut) {
        let fixed = name.static_index(hash);
        if let Some(index) = fixed
            && name.has_static_value(index, value)
        {
            return put_index(index, out);
        }
        let known = self.find_name(name, hash);
        let size = name.as_str().len() + value.len() + ENTRY_OVERHEAD;
        // A larger entry would push out nearly all others.
        let fits = size <= self.table.max() / 4 * 3;
        let insert = fits
            && match Habit::of(fixed) {
                Habit::Secret => false,
                Habit::Volatile => self.seen(hash),
                // A name that had another value before is likely to get yet another one next time,
                // like the id of a trace.
                Habit::Stable => known.is_none() || self.seen(hash),
            };
        let literal = if insert { INDEXED } else { NOT_INDEXED };
        put_literal(literal, fixed.or(known), name, value, out);
        if insert {
            self.insert(name, value, hash, size);
        }
    }

    /// Neither our table nor that of any proxy behind us may keep it (RFC 7541 §7.1.3).
    fn write_sensitive(&self, name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
        let name = Name::Header(name);
        let hash = Hash::new(name.as_str(), &[]);
        let index = name.static_index(hash).or_else(|| self.find_name(name, hash));
        put_literal(NEVER_INDEXED, index, name, value.as_bytes(), out);
    }

    /// The index of an entry with this name and value.
    #[inline(always)]
    fn find(&self, name: Name<'_>, value: &[u8], hash: Hash) -> Option<usize> {
        let set = &self.slots.as_ref()?.fields[hash.field_set()];
        self.find_in(set, hash.field, |entry| {
            name == entry.name.borrowed() && *value == *entry.value
        })
    }

    /// The index of an entry with this name.
    fn find_name(&self, name: Name<'_>, hash: Hash) -> Option<usize> {
        let set = &self.slots.as_ref()?.names[hash.name_set()];
        self.find_in(set, hash.name, |entry| name == entry.name.borrowed())
    }

    #[inline(always)]
    fn find_in(&self, set: &Set, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Option<usize> {
        for slot in set.iter().filter(|slot| slot.tag == tag(hash)) {
            let age = self.table.age(slot.number);
            if self.table.get(age).is_some_and(|(entry, _)| is_it(entry)) {
                return Some(FIRST_DYNAMIC + age);
            }
        }
        None
    }

    /// Whether we saw this field before, not long ago.
    fn seen(&mut self, hash: Hash) -> bool {
        let slots = self.slots.get_or_insert_with(Slots::new);
        let (set, mark) = hash.seen();
        let set = &mut slots.seen[set];
        let seen = set.contains(&mark);
        push(set, mark, |known| *known == mark);
        seen
    }

    fn insert(&mut self, name: Name<'_>, value: &[u8], hash: Hash, size: usize) {
        // A copy, as a clone of the value could keep the whole read buffer it came in.
        let entry = Entry {
            name: name.to_owned(),
            value: value.into(),
        };
        if let Some(number) = self.table.insert(entry, size) {
            let slots = self.slots.get_or_insert_with(Slots::new);
            for (set, hash) in [
                (&mut slots.fields[hash.field_set()], hash.field),
                (&mut slots.names[hash.name_set()], hash.name),
            ] {
                let tag = tag(hash);
                push(set, Slot { tag, number }, |slot| slot.tag == tag);
            }
        }
    }
}

/// Where to look in the table, in sets of a few slots by the hash. What a slot says is only a guess,
/// which a look at the entry confirms: an empty, stale or overwritten slot costs compression, nothing
/// else. So nobody can make a lookup slow by a choice of fields.
struct Slots {
    /// By name and value.
    fields: [Set; 64],
    /// By name, the newest entry that has it.
    names: [Set; 64],
    /// Hashes of fields that were not indexed when we saw them.
    seen: [[u32; 4]; 16],
}

impl Slots {
    fn new() -> Box<Self> {
        let empty = [Slot { tag: 0, number: 0 }; 4];
        Box::new(Self {
            fields: [empty; 64],
            names: [empty; 64],
            seen: [[0; 4]; 16],
        })
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Slot {
    /// More bits of the hash.
    tag: u16,
    /// The number of the entry, see [`Ring::insert`].
    number: u16,
}

type Set = [Slot; 4];

/// Puts an item first in its set: in the place of the one it replaces, or else of the oldest.
fn push<T>(set: &mut [T; 4], item: T, replaces: impl Fn(&T) -> bool) {
    let last = set.iter().position(replaces).unwrap_or(3);
    set[..=last].rotate_right(1);
    set[0] = item;
}

/// How the values of a field behave.
enum Habit {
    /// Not to be guessed by the size of other requests on this connection (RFC 7541 §7.1).
    Secret,
    /// Mostly new, so that only one seen twice is worth an entry.
    Volatile,
    Stable,
}

impl Habit {
    /// By the index of the name in the static table, which has all the names that matter here.
    fn of(name: Option<usize>) -> Self {
        match name {
            // authorization, cookie, proxy-authorization, set-cookie
            Some(23 | 32 | 49 | 55) => Self::Secret,
            // :path, age, content-length, content-location, content-range, date, etag, expires,
            // if-match, if-modified-since, if-none-match, if-range, if-unmodified-since,
            // last-modified, location, range, referer, retry-after
            Some(4 | 21 | 28..=30 | 33 | 34 | 36 | 39..=44 | 46 | 50 | 51 | 53) => Self::Volatile,
            _ => Self::Stable,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Name<'a> {
    Pseudo(Pseudo),
    Header(&'a HeaderName),
}

impl Name<'_> {
    #[inline]
    fn as_str(&self) -> &str {
        match self {
            Self::Pseudo(pseudo) => pseudo.as_str(),
            Self::Header(name) => name.as_str(),
        }
    }

    /// The index of this name in the static table.
    fn static_index(self, hash: Hash) -> Option<usize> {
        match self {
            Self::Pseudo(Pseudo::Authority) => Some(1),
            Self::Pseudo(Pseudo::Method) => Some(2),
            Self::Pseudo(Pseudo::Path) => Some(4),
            Self::Pseudo(Pseudo::Scheme) => Some(6),
            Self::Pseudo(Pseudo::Status) => Some(8),
            Self::Pseudo(Pseudo::Protocol) => None,
            Self::Header(name) => {
                let index = usize::from(STATIC_NAMES[hash.static_slot()]);
                matches!(static_header(index), Some((known, _)) if known == name).then_some(index)
            }
        }
    }

    /// Whether the static entry with this header's name has this value too.
    fn has_static_value(self, index: usize, value: &[u8]) -> bool {
        matches!(self, Self::Header(_))
            && static_header(index).is_some_and(|(_, known)| known.as_bytes() == value)
    }

    fn to_owned(self) -> OwnedName {
        match self {
            Self::Pseudo(pseudo) => OwnedName::Pseudo(pseudo),
            Self::Header(name) => OwnedName::Header(name.clone()),
        }
    }
}

enum OwnedName {
    Pseudo(Pseudo),
    Header(HeaderName),
}

impl OwnedName {
    #[inline]
    fn borrowed(&self) -> Name<'_> {
        match self {
            Self::Pseudo(pseudo) => Name::Pseudo(*pseudo),
            Self::Header(name) => Name::Header(name),
        }
    }
}

struct Entry {
    name: OwnedName,
    value: Box<[u8]>,
}

/// The entries of the static table that have both name and value (RFC 7541 Appendix A).
fn static_pseudo(name: Pseudo, value: &[u8]) -> Option<u8> {
    Some(match (name, value) {
        (Pseudo::Method, b"GET") => 2,
        (Pseudo::Method, b"POST") => 3,
        (Pseudo::Path, b"/") => 4,
        (Pseudo::Path, b"/index.html") => 5,
        (Pseudo::Scheme, b"http") => 6,
        (Pseudo::Scheme, b"https") => 7,
        (Pseudo::Status, b"200") => 8,
        (Pseudo::Status, b"204") => 9,
        (Pseudo::Status, b"206") => 10,
        (Pseudo::Status, b"304") => 11,
        (Pseudo::Status, b"400") => 12,
        (Pseudo::Status, b"404") => 13,
        (Pseudo::Status, b"500") => 14,
        _ => return None,
    })
}

fn static_header(index: usize) -> Option<(&'static HeaderName, &'static HeaderValue)> {
    match FIELDS.get(index.checked_sub(1)?)? {
        Field::Header(name, value) => Some((name, value)),
        _ => None,
    }
}

/// The static table's headers by the hash of their names, or zero.
static STATIC_NAMES: LazyLock<[u8; 512]> = LazyLock::new(|| {
    let mut slots = [0; 512];
    for index in 1..=61 {
        if let Some((name, _)) = static_header(usize::from(index)) {
            slots[Hash::new(name.as_str(), &[]).static_slot()] = index;
        }
    }
    slots
});

/// Found by trial: with it, the names of the static table share no slot of `STATIC_NAMES`.
const NAME_SEED: u64 = 5;

/// The hashes of a field. They are cheap rather than good, see [`Slots`].
#[derive(Clone, Copy)]
struct Hash {
    name: u64,
    field: u64,
}

impl Hash {
    #[inline]
    fn new(name: &str, value: &[u8]) -> Self {
        let name = hash(name.as_bytes(), NAME_SEED);
        Self {
            name,
            field: hash(value, name),
        }
    }

    #[inline]
    fn field_set(self) -> usize {
        top_bits::<6>(self.field)
    }

    #[inline]
    fn name_set(self) -> usize {
        top_bits::<6>(self.name)
    }

    fn static_slot(self) -> usize {
        top_bits::<9>(self.name)
    }

    fn seen(self) -> (usize, u32) {
        (top_bits::<4>(self.field), (self.field >> 28) as u32)
    }
}

#[inline]
fn top_bits<const BITS: u32>(hash: u64) -> usize {
    (hash >> (u64::BITS - BITS)) as usize
}

/// The bits after those that choose the set. They are compared before the entry is.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> 42) as u16
}

/// Hashes the length, both ends and, of a string that is longer than these, the middle.
#[inline]
fn hash(string: &[u8], seed: u64) -> u64 {
    let length = string.len();
    let (start, end) = match (string.first_chunk(), string.last_chunk()) {
        (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_be_bytes(*end)),
        _ => short_ends(string),
    };
    let ends = mix(start ^ seed, end ^ length as u64);
    if length <= 16 {
        return ends;
    }
    match string.get(length / 2 - 8..).and_then(<[u8]>::first_chunk) {
        Some(middle) => {
            let middle = u128::from_le_bytes(*middle);
            mix(ends ^ middle as u64, (middle >> 64) as u64)
        }
        // Not reached: the middle of more than 16 bytes has 16.
        None => ends,
    }
}

/// Both halves of a string of less than eight bytes.
#[inline]
fn short_ends(string: &[u8]) -> (u64, u64) {
    if let (Some(start), Some(end)) = (string.first_chunk(), string.last_chunk()) {
        return (u32::from_le_bytes(*start).into(), u32::from_be_bytes(*end).into());
    }
    match *string {
        [] => (0, 0),
        [only] => (only.into(), 0),
        [first, .., last] => (first.into(), u64::from(string[1]) << 8 | u64::from(last)),
    }
}

/// Mixes so that all bits of both words reach the top bits of the result, the low ones the most.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    (a.wrapping_mul(ODD).rotate_left(32) ^ b).wrapping_mul(ODD)
}

#[derive(Clone, Copy)]
struct Literal {
    pattern: u8,
    prefix: u32,
}

/// Writes a literal field, its name by index if there is one (RFC 7541 §6.2).
fn put_literal(literal: Literal, index: Option<usize>, name: Name<'_>, value: &[u8], out: &mut BytesMut) {
    put_integer(index.unwrap_or(0), literal.prefix, literal.pattern, out);
    if index.is_none() {
        put_string(name.as_str().as_bytes(), out);
    }
    put_string(value, out);
}

/// Writes a field that is in one of the tables (RFC 7541 §6.1).
#[inline]
fn put_index(index: usize, out: &mut BytesMut) {
    match u8::try_from(index) {
        Ok(index) if index < 0x7f => out.extend_from_slice(&[INDEXED_FIELD | index]),
        _ => put_integer(index, 7, INDEXED_FIELD, out),
    }
}

fn put_string(string: &[u8], out: &mut BytesMut) {
    put_integer(string.len(), 7, 0, out);
    out.extend_from_slice(string);
}

/// Writes an integer into the low `prefix` bits of a byte and those after it (RFC 7541 §5.1).
fn put_integer(value: usize, prefix: u32, pattern: u8, out: &mut BytesMut) {
    let mask = (1 << prefix) - 1;
    match u8::try_from(value) {
        Ok(value) if value < mask => out.extend_from_slice(&[pattern | value]),
        _ => {
            out.extend_from_slice(&[pattern | mask]);
            put_rest(value - usize::from(mask), out);
        }
    }
}

fn put_rest(mut value: usize, out: &mut BytesMut) {
    while value >= 0x80 {
        out.extend_from_slice(&[0x80 | (value & 0x7f) as u8]);
        value >>= 7;
    }
    out.extend_from_slice(&[value as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_only_a_guess() {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let (one, two) = (HeaderValue::from_static("1"), HeaderValue::from_static("2"));
        let mut encoder = Encoder::new();
        encoder.field(&a, &one, &mut BytesMut::new());
        for (name, value, known) in [(&a, &one, true), (&a, &two, false), (&b, &one, false)] {
            let hash = Hash::new(name.as_str(), value.as_bytes());
            let slots = encoder.slots.as_mut().unwrap();
            // As if their hashes were those of the first field.
            slots.fields[hash.field_set()][0] = Slot {
                tag: tag(hash.field),
                number: 0,
            };
            slots.names[hash.name_set()][0] = Slot {
                tag: tag(hash.name),
                number: 0,
            };
            let name = Name::Header(name);
            assert_eq!(
                encoder.find(name, value.as_bytes(), hash),
                known.then_some(FIRST_DYNAMIC)
            );
            let known = name == Name::Header(&a);
            assert_eq!(encoder.find_name(name, hash), known.then_some(FIRST_DYNAMIC));
        }
    }
}
