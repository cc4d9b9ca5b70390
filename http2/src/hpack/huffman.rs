//! The Huffman code for strings (RFC 7541 §5.2 and Appendix B), decoding only: we never send it.
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and
//! longer ones follow. So the lengths alone define it, and all tables come from them at compile time.

use super::Error;

/// The bits of the code of each symbol; the last one is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const EOS: u16 = 256;
const LONGEST: usize = 30;

/// Codes up to this length are found with one access. They cover nearly all that fields consist of.
const SHORT_BITS: usize = 8;

/// All codes of one length.
#[derive(Clone, Copy)]
struct Level {
    /// The first code.
    first: u64,
    /// The end of the codes of this and all shorter lengths, as a prefix of 32 bits.
    end: u64,
    /// Where the symbols start in `SYMBOLS`.
    offset: usize,
}

static LEVELS: [Level; LONGEST + 1] = levels();
static SYMBOLS: [u16; 257] = symbols();
/// By the next eight bits: the symbol and the length of its code, or length zero if it is longer.
static SHORT: [(u8, u8); 1 << SHORT_BITS] = short();

const fn levels() -> [Level; LONGEST + 1] {
    let mut levels = [Level {
        first: 0,
        end: 0,
        offset: 0,
    }; LONGEST + 1];
    let (mut code, mut offset, mut length) = (0, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        levels[length].first = code;
        levels[length].offset = offset;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code += 1;
                offset += 1;
            }
            symbol += 1;
        }
        levels[length].end = code << (32 - length);
        length += 1;
    }
    levels
}

const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut filled, mut length) = (0, 1);
    while length <= LONGEST {
        let mut symbol: u16 = 0;
        while symbol <= EOS {
            if LENGTHS[symbol as usize] as usize == length {
                symbols[filled] = symbol;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

const fn short() -> [(u8, u8); 1 << SHORT_BITS] {
    let mut short = [(0, 0); 1 << SHORT_BITS];
    let (mut filled, mut next) = (0, 0);
    // The symbols in code order fill the table from its start, each as often as bits are left over.
    while LENGTHS[SYMBOLS[next] as usize] as usize <= SHORT_BITS {
        let symbol = SYMBOLS[next];
        let length = LENGTHS[symbol as usize];
        let end = filled + (1 << (SHORT_BITS - length as usize));
        while filled < end {
            short[filled] = (symbol as u8, length);
            filled += 1;
        }
        next += 1;
    }
    short
}

/// Appends the decoded string to `out`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    // The shortest code has five bits.
    out.reserve(input.len() / 5 * 8 + 8);
    let mut bits = Bits {
        rest: input,
        window: 0,
        valid: 0,
    };
    loop {
        if bits.valid < LONGEST {
            bits.refill();
        }
        let (symbol, length) = match SHORT[usize::from(bits.window.to_be_bytes()[0])] {
            (_, 0) => find_long(bits.window >> 32),
            (symbol, length) => (u16::from(symbol), usize::from(length)),
        };
        if length > bits.valid {
            return bits.check_padding();
        }
        // EOS is no byte, and an error wherever it is complete.
        out.push(u8::try_from(symbol).map_err(|_| Error)?);
        bits.skip(length);
    }
}

/// The symbol at the start of these 32 bits, and the length of its code.
fn find_long(prefix: u64) -> (u16, usize) {
    for (length, level) in LEVELS.iter().enumerate().skip(SHORT_BITS + 1) {
        if prefix < level.end {
            let nth = (prefix >> (32 - length)) - level.first;
            return (SYMBOLS[level.offset + nth as usize], length);
        }
    }
    // Not reached: every sequence of bits starts with a code.
    (EOS, LONGEST)
}

/// The input as a sequence of bits.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits, from the highest one down, with zeros after the valid ones.
    window: u64,
    valid: usize,
}

impl Bits<'_> {
    /// Fills the window to at least [`LONGEST`] bits, if there are as many.
    fn refill(&mut self) {
        if let Some((word, rest)) = self.rest.split_first_chunk() {
            self.window |= u64::from(u32::from_be_bytes(*word)) << (32 - self.valid);
            self.valid += 32;
            self.rest = rest;
            return;
        }
        for byte in self.rest {
            self.window |= u64::from(*byte) << (56 - self.valid);
            self.valid += 8;
        }
        self.rest = &[];
    }

    fn skip(&mut self, length: usize) {
        self.window <<= length;
        self.valid -= length;
    }

    /// What is left must be the start of EOS, all ones, and less than a byte.
    fn check_padding(&self) -> Result<(), Error> {
        let ones = self.window.leading_ones();
        if self.valid < 8 && usize::try_from(ones) == Ok(self.valid) {
            Ok(())
        } else {
            Err(Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of each symbol, in canonical order.
    fn codes() -> Vec<(u64, u32)> {
        let mut order: Vec<usize> = (0..=256).collect();
        order.sort_by_key(|symbol| LENGTHS[*symbol]);
        let mut codes = vec![(0, 0); 257];
        let (mut code, mut previous) = (0, 0);
        for symbol in order {
            let length = u32::from(LENGTHS[symbol]);
            code <<= length - previous;
            codes[symbol] = (code, length);
            previous = length;
            code += 1;
        }
        codes
    }

    /// Encodes the symbols, without padding, as a string of digits.
    fn digits(codes: &[(u64, u32)], symbols: &[usize]) -> String {
        let digits = |symbol: &usize| {
            let (code, length) = codes[*symbol];
            format!("{code:0width$b}", width = length as usize)
        };
        symbols.iter().map(digits).collect()
    }

    fn bytes(mut digits: String, padding: char) -> Vec<u8> {
        while !digits.len().is_multiple_of(8) {
            digits.push(padding);
        }
        let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
        digits.as_bytes().chunks(8).map(byte).collect()
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn code_is_that_of_the_rfc() {
        let sum: u32 = LENGTHS.iter().map(|length| 1 << (30 - length)).sum();
        assert_eq!(sum, 1 << 30, "Kraft");
        let codes = codes();
        // A few lines of Appendix B, of all lengths.
        let known = [
            (b'0', 0x0, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'Z', 0xfd, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (b'#', 0xffa, 12),
            (b'~', 0x1ffd, 13),
            (b'}', 0x3ffd, 14),
            (b'<', 0x7ffc, 15),
            (b'\\', 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (192, 0x3ffffe0, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (249, 0xffffffe, 28),
            (10, 0x3ffffffc, 30),
            (22, 0x3ffffffe, 30),
        ];
        for (symbol, code, length) in known {
            assert_eq!(codes[usize::from(symbol)], (code, length), "{symbol}");
        }
        assert_eq!(codes[256], (0x3fff_ffff, 30));
    }

    #[test]
    fn round_trips() {
        let codes = codes();
        let check = |string: &[u8]| {
            let symbols: Vec<usize> = string.iter().copied().map(usize::from).collect();
            assert_eq!(
                decoded(&bytes(digits(&codes, &symbols), '1')).as_deref(),
                Ok(string)
            );
        };
        for first in 0..=255 {
            (0..=255).for_each(|second| check(&[first, second]));
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let ascii = random.bool();
            let next = |_| if ascii { random.u8(32..127) } else { random.u8(..) };
            check(&(0..40).map(next).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn padding() {
        let codes = codes();
        assert_eq!(decoded(&[]), Ok(vec![]));
        assert_eq!(decoded(&[0xff]), Err(Error), "a whole byte");
        assert_eq!(
            decoded(&bytes(digits(&codes, &[b'a'.into()]), '0')),
            Err(Error),
            "not of EOS"
        );
        // Five bits each: every length of padding.
        for count in 1..=8 {
            let digits = digits(&codes, &vec![b'0'.into(); count]);
            assert_eq!(decoded(&bytes(digits.clone(), '1')), Ok(vec![b'0'; count]));
            assert_eq!(decoded(&bytes(digits + "11111111", '1')), Err(Error), "{count}");
        }
    }

    #[test]
    fn eos_is_an_error() {
        let codes = codes();
        let zero = usize::from(b'0');
        assert_eq!(decoded(&bytes(digits(&codes, &[256]), '1')), Err(Error));
        assert_eq!(
            decoded(&bytes(digits(&codes, &[zero, 256, zero]), '1')),
            Err(Error)
        );
    }
}
