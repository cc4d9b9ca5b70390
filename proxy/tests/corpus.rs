//! The fuzz targets over their committed seeds, over changed seeds, and over random bytes.

#[path = "../../fuzz/src/targets.rs"]
#[allow(unreachable_pub, reason = "it is a module of the fuzz crate too")]
mod targets;

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(target);
    let files = std::fs::read_dir(&directory).expect("every target has a directory of seeds");
    let mut paths: Vec<_> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed"))
        .collect()
}

#[test]
fn every_seed_keeps_the_promises() {
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| target(seed));
    }
}

proptest! {
    #[test]
    fn a_changed_seed_keeps_the_promises(
        (name, target) in select(&targets::ALL[..]),
        seed: Index,
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        length: Index,
    ) {
        let mut seeds = seeds(name);
        let mut bytes = seeds.swap_remove(seed.index(seeds.len()));
        for (at, byte) in changes.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(length.index(2 * bytes.len() + 1));
        target(&bytes);
    }

    #[test]
    fn random_bytes_keep_the_promises((_, target) in select(&targets::ALL[..]), bytes in vec(any::<u8>(), 0..300)) {
        target(&bytes);
    }
}
