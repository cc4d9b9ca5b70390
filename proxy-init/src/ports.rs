//! Ports and ranges of ports, and their batches for the multiport match, which has room for fifteen.

use std::fmt;

/// Ports from `low` to `high`, both included, 1 ≤ low ≤ high; prints as iptables writes it, `lo:hi` or one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    low: u16,
    high: u16,
}

impl PortRange {
    /// Reads `port` or `low-high`.
    ///
    /// # Errors
    /// A sentence that names the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((low, high)) = text.split_once('-') else {
            let port = parse_port(text)?;
            return Ok(Self {
                low: port,
                high: port,
            });
        };
        let range_of = |end: &str| parse_port(end.trim()).map_err(|_| not_a_range(text));
        let (low, high) = (range_of(low)?, range_of(high)?);
        match low <= high {
            true => Ok(Self { low, high }),
            false => Err(format!("{text:?} ends before it begins: write {high}-{low}")),
        }
    }

    /// What it costs in a multiport match: a range is two of the fifteen.
    fn slots(self) -> usize {
        if self.low == self.high { 1 } else { 2 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low == self.high {
            true => write!(f, "{}", self.low),
            false => write!(f, "{}:{}", self.low, self.high),
        }
    }
}

/// Reads one port, 1 to 65535.
///
/// # Errors
/// A sentence that names the text.
pub fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port (1 to 65535)")),
    }
}

fn not_a_range(text: &str) -> String {
    format!("{text:?} is not a range of ports (low-high, 1 to 65535)")
}

/// The kernel's `XT_MULTI_PORTS`.
const SLOTS: usize = 15;

/// Splits a list, its order kept, into as few pieces as fit a multiport match each.
pub fn batches(ports: &[PortRange]) -> Vec<&[PortRange]> {
    let mut batches = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (i, port) in ports.iter().enumerate() {
        if used + port.slots() > SLOTS {
            batches.push(&ports[start..i]);
            (start, used) = (i, 0);
        }
        used += port.slots();
    }
    if start < ports.len() {
        batches.push(&ports[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_of_one_port_is_a_port() {
        assert_eq!(PortRange::parse("22-22").unwrap().to_string(), "22");
        assert_eq!(PortRange::parse("1-65535").unwrap().to_string(), "1:65535");
    }

    #[test]
    fn a_range_that_would_be_the_sixteenth_slot_opens_a_new_batch() {
        let ports: Vec<_> = (1..=14)
            .map(|port| PortRange {
                low: port,
                high: port,
            })
            .collect();
        let ports = [ports, vec![PortRange { low: 20, high: 30 }]].concat();
        assert_eq!(
            batches(&ports)
                .iter()
                .map(|batch| batch.len())
                .collect::<Vec<_>>(),
            [14, 1]
        );
    }

    #[test]
    fn no_ports_make_no_batch() {
        assert!(batches(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn batches_fit_keep_the_order_and_lose_nothing(ports in prop::collection::vec(any_range(), 0..100)) {
            let batches = batches(&ports);
            prop_assert_eq!(batches.concat(), &ports[..]);
            for batch in &batches {
                let slots: usize = batch.iter().map(|port| port.slots()).sum();
                prop_assert!((1..=SLOTS).contains(&slots));
            }
            for pair in batches.windows(2) {
                let slots: usize = pair[0].iter().map(|port| port.slots()).sum();
                prop_assert!(slots + pair[1][0].slots() > SLOTS, "a batch was closed too early");
            }
        }

        #[test]
        fn what_is_read_is_what_was_written(low in 1..=u16::MAX, high in 1..=u16::MAX) {
            let range = PortRange::parse(&format!("{low}-{high}"));
            match low <= high {
                true => prop_assert_eq!(range, Ok(PortRange { low, high })),
                false => prop_assert!(range.is_err()),
            }
        }

        #[test]
        fn any_text_is_read_or_refused_by_name(text in ".*") {
            if let Err(error) = PortRange::parse(&text) {
                let named = error.contains(&format!("{text:?}"));
                prop_assert!(named, "{}", error);
            }
        }
    }

    fn any_range() -> impl Strategy<Value = PortRange> {
        (1..=u16::MAX, prop_oneof![Just(0), 0..100_u16]).prop_map(|(low, more)| PortRange {
            low,
            high: low.saturating_add(more),
        })
    }
}
