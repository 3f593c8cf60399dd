//! Which images look the same, without comparing each with each.
//!
//! Multi-index hashing (Norouzi, Punjani and Fleet, 2012, "Fast Search in Hamming Space with Multi-Index Hashing"): the 256 bits are dealt out to chunks, two
//! more than half the distance. Of two hashes within the distance at least two chunks then differ by one bit at most. So the hashes that share a chunk with
//! one, or all of it but a bit, are counted, and only those that are met twice are compared. On UTKFace's faces, whose bits are far from
//! even, some three of a hundred are counted.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Instant;

use crate::priority;

use super::Error;
use super::fingerprint::{BITS, Fingerprint, Hash, differing};
use super::scan::{QUEUE, REPORT_EVERY};

/// The distance up to which two images count as near-duplicates, unless the caller says another: well below the first pairs of different faces, because
/// the number of pairs grows with the square of the images.
pub const DEFAULT_NEAR_DISTANCE: u32 = 32;
/// Largest distance; beyond it faces of different people were met.
pub const MAX_NEAR_DISTANCE: u32 = 40;

/// Fewest chunks, so that the keys of a chunk have 16 bits at most.
const LEAST_CHUNKS: u32 = 16;
/// Images that a thread takes at once.
const BLOCK: usize = 64;

/// What is searched, and how.
pub(super) struct Search<'a> {
    /// One for each image; none for those that cannot be compared.
    pub(super) fingerprints: &'a [Option<Fingerprint>],
    /// The hash of each image's bytes.
    pub(super) contents: &'a [[u8; 32]],
    /// Up to [`MAX_NEAR_DISTANCE`].
    pub(super) distance: u32,
    pub(super) threads: NonZeroUsize,
    /// Whether everything else goes first.
    pub(super) background: bool,
}

impl Search<'_> {
    /// The groups of images that are linked by pairs within the distance, byte-identical ones included, except those that are all byte-identical.
    ///
    /// Each group and the list of them are sorted by index. `progress` and `cancelled` are used as in [`super::load`].
    pub(super) fn groups(
        &self,
        progress: &mut dyn FnMut(usize, usize),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<usize>>, Error> {
        let mut sets = DisjointSets::new(self.contents.len());
        // Images with the same bytes or the same hash need no search, and one of each stands for all.
        let mut by_content: HashMap<&[u8; 32], usize> = HashMap::new();
        let mut by_hash: HashMap<Hash, usize> = HashMap::new();
        let mut points = Vec::new();
        for (index, content) in self.contents.iter().enumerate() {
            let twin = *by_content.entry(content).or_insert(index);
            if twin != index {
                sets.join(twin, index);
                continue;
            }
            if let Some(fingerprint) = self.fingerprints[index] {
                let twin = *by_hash.entry(fingerprint.plain).or_insert(index);
                sets.join(twin, index);
                if twin == index {
                    points.push((index, fingerprint));
                }
            }
        }
        for (one, other) in self.links(&points, progress, cancelled)? {
            sets.join(points[one].0, points[other].0);
        }
        let mut groups = sets.into_groups();
        groups.retain(|group| {
            let first = self.contents[group[0]];
            group.iter().any(|index| self.contents[*index] != first)
        });
        Ok(groups)
    }

    /// Enough pairs of points within the distance to link all that are linked.
    fn links(
        &self,
        points: &[(usize, Fingerprint)],
        progress: &mut dyn FnMut(usize, usize),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<(usize, usize)>, Error> {
        let index = Index::new(points, self.distance);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let blocks = points.len().div_ceil(BLOCK);
        let threads = self
            .threads
            .min(NonZeroUsize::new(blocks).unwrap_or(NonZeroUsize::MIN));
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(QUEUE);
            let mut workers = Vec::new();
            for _ in 0..threads.get() {
                let sender = sender.clone();
                let (index, next, stop) = (&index, &next, &stop);
                workers.push(scope.spawn(move || {
                    if self.background {
                        priority::lower_thread_priority(priority::MAX_NICE);
                    }
                    let mut linking = Linking {
                        sets: DisjointSets::new(points.len()),
                        links: Vec::new(),
                        met: vec![0; points.len()],
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let begin = next.fetch_add(1, Ordering::Relaxed) * BLOCK;
                        if begin >= points.len() {
                            break;
                        }
                        let end = (begin + BLOCK).min(points.len());
                        for (point, (_, fingerprint)) in
                            points.iter().enumerate().take(end).skip(begin)
                        {
                            index.link(point, fingerprint, &mut linking);
                        }
                        if sender.send(end - begin).is_err() {
                            break;
                        }
                    }
                    linking.links
                }));
            }
            drop(sender);
            let mut done = 0;
            let mut last_report = Instant::now();
            let finished = loop {
                match receiver.recv_timeout(REPORT_EVERY) {
                    Ok(count) => done += count,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break !cancelled(),
                }
                if last_report.elapsed() >= REPORT_EVERY {
                    last_report = Instant::now();
                    if cancelled() {
                        break false;
                    }
                    progress(done, points.len());
                }
            };
            stop.store(true, Ordering::Relaxed);
            // A thread that waits to tell how far it is must not wait for ever.
            drop(receiver);
            let mut links = Vec::new();
            for worker in workers {
                match worker.join() {
                    Ok(found) => links.extend(found),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            if !finished {
                return Err(Error::Cancelled);
            }
            progress(points.len(), points.len());
            Ok(links)
        })
    }
}

/// The points by the keys of their chunks.
struct Index {
    /// The plain hashes alone, close together.
    hashes: Vec<Hash>,
    distance: u32,
    chunks: Vec<Chunk>,
}

/// One chunk of the bits of all points.
struct Chunk {
    /// The bits' places in a hash; the first is the lowest of the key.
    bits: Vec<u32>,
    /// Where the points of each key begin among `members`, and where those of the last end.
    starts: Vec<u32>,
    /// Points in their order, key by key.
    members: Vec<u32>,
}

/// What one thread works with.
struct Linking {
    sets: DisjointSets,
    links: Vec<(usize, usize)>,
    /// In how many chunks each point was met.
    met: Vec<u8>,
}

impl Index {
    fn new(points: &[(usize, Fingerprint)], distance: u32) -> Self {
        let hashes: Vec<Hash> = points.iter().map(|(_, found)| found.plain).collect();
        let count = (distance / 2 + 2).max(LEAST_CHUNKS);
        let chunks = (0..count).map(|number| {
            // Dealt out in turn: neighbours among the frequencies have much in common.
            let bits: Vec<u32> = (number..BITS).step_by(count as usize).collect();
            Chunk::new(bits, &hashes)
        });
        Index {
            chunks: chunks.collect(),
            hashes,
            distance,
        }
    }

    /// Adds the links of a point that join what the sets has apart.
    fn link(&self, point: usize, fingerprint: &Fingerprint, linking: &mut Linking) {
        // Plain pairs are met from both of their ends, so those before are enough; mirrored ones may be within the distance from one end only.
        self.link_hash(point, &fingerprint.plain, point, linking);
        self.link_hash(point, &fingerprint.mirrored, self.hashes.len(), linking);
    }

    /// Links a point, by one of its hashes, to those of the points before `end` that are within the distance.
    fn link_hash(&self, point: usize, hash: &Hash, end: usize, linking: &mut Linking) {
        let Linking { sets, links, met } = linking;
        met.fill(0);
        for chunk in &self.chunks {
            let key = chunk.key(hash);
            let neighbours = (0..chunk.bits.len()).map(|bit| key ^ (1 << bit));
            for key in std::iter::once(key).chain(neighbours) {
                for &other in chunk.members_of(key) {
                    let other = other as usize;
                    if other >= end {
                        break;
                    }
                    met[other] += 1;
                    if met[other] == 2
                        && other != point
                        && differing(hash, &self.hashes[other]) <= self.distance
                        && sets.join(point, other)
                    {
                        links.push((point, other));
                    }
                }
            }
        }
    }
}

impl Chunk {
    fn new(bits: Vec<u32>, hashes: &[Hash]) -> Self {
        let mut chunk = Chunk {
            starts: vec![0; (1 << bits.len()) + 1],
            members: vec![0; hashes.len()],
            bits,
        };
        let keys: Vec<usize> = hashes.iter().map(|hash| chunk.key(hash)).collect();
        for key in &keys {
            chunk.starts[key + 1] += 1;
        }
        for key in 1..chunk.starts.len() {
            chunk.starts[key] += chunk.starts[key - 1];
        }
        let mut places = chunk.starts.clone();
        for (point, key) in keys.into_iter().enumerate() {
            // `load` never has more than `u32::MAX` images.
            chunk.members[places[key] as usize] = point as u32;
            places[key] += 1;
        }
        chunk
    }

    fn key(&self, hash: &Hash) -> usize {
        let bit = |place: &u32| (hash[(place / 64) as usize] >> (place % 64)) as usize & 1;
        self.bits
            .iter()
            .enumerate()
            .map(|(index, place)| bit(place) << index)
            .sum()
    }

    fn members_of(&self, key: usize) -> &[u32] {
        &self.members[self.starts[key] as usize..self.starts[key + 1] as usize]
    }
}

/// Disjoint sets.
struct DisjointSets(Vec<u32>);

impl DisjointSets {
    fn new(count: usize) -> Self {
        // `load` never has more than `u32::MAX` images.
        DisjointSets((0..count).map(|index| index as u32).collect())
    }

    fn root(&mut self, index: usize) -> usize {
        let mut index = index;
        while self.0[index] as usize != index {
            // Halving the path keeps it short.
            self.0[index] = self.0[self.0[index] as usize];
            index = self.0[index] as usize;
        }
        index
    }

    /// Makes one set of two; false if they were one.
    fn join(&mut self, one: usize, other: usize) -> bool {
        let (one, other) = (self.root(one), self.root(other));
        // Below the smaller index, so that a root is the first of its set.
        self.0[one.max(other)] = one.min(other) as u32;
        one != other
    }

    /// The sets of two and more, each sorted, by their first.
    fn into_groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for index in 0..self.0.len() {
            let root = self.root(index);
            if root != index {
                groups.entry(root).or_insert_with(|| vec![root]).push(index);
            }
        }
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort_unstable();
        groups
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    fn random_hash(random: &mut ChaCha8Rng) -> Hash {
        std::array::from_fn(|_| random.next_u64())
    }

    fn flipped(mut hash: Hash, random: &mut ChaCha8Rng, bits: u32) -> Hash {
        let before = hash;
        while differing(&hash, &before) < bits {
            let place = random.next_u32() % BITS;
            hash[(place / 64) as usize] ^= 1 << (place % 64);
        }
        hash
    }

    fn search(fingerprints: &[Option<Fingerprint>], distance: u32) -> Vec<Vec<usize>> {
        let contents: Vec<[u8; 32]> = (0..fingerprints.len())
            .map(|index| std::array::from_fn(|place| (index >> (8 * (place % 4))) as u8))
            .collect();
        let search = Search {
            fingerprints,
            contents: &contents,
            distance,
            threads: NonZeroUsize::new(3).unwrap(),
            background: false,
        };
        search.groups(&mut |_, _| {}, &|| false).unwrap()
    }

    /// Pairs at exactly the distance are found and pairs one bit further are not, wherever the bits lie.
    #[test]
    fn what_is_within_the_distance_is_found_and_nothing_else() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for distance in [0, 1, 7, 31, DEFAULT_NEAR_DISTANCE, MAX_NEAR_DISTANCE] {
            let mut fingerprints = Vec::new();
            let mut expected = Vec::new();
            for number in 0..300 {
                let plain = random_hash(&mut random);
                let further = number % 2;
                let other = flipped(plain, &mut random, distance + further);
                // A pair by the mirrored image in every third.
                let by_mirror = number % 3 == 0;
                if further == 0 {
                    expected.push(vec![fingerprints.len(), fingerprints.len() + 1]);
                }
                let mut unrelated = || random_hash(&mut random);
                let first = Fingerprint {
                    plain,
                    mirrored: unrelated(),
                };
                let second = match by_mirror {
                    true => Fingerprint {
                        plain: unrelated(),
                        mirrored: other,
                    },
                    false => Fingerprint {
                        plain: other,
                        mirrored: unrelated(),
                    },
                };
                fingerprints.extend([Some(first), Some(second)]);
            }
            assert_eq!(search(&fingerprints, distance), expected, "{distance}");
        }
    }

    #[test]
    fn groups_are_chains_and_images_without_a_fingerprint_stay_alone() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let start = random_hash(&mut random);
        let mut mirrored = || random_hash(&mut random);
        let mut hashes = vec![start];
        // Each 20 bits from the one before, and other ones each time.
        for step in 0..4_u32 {
            let mut next = hashes[step as usize];
            for place in step * 20..(step + 1) * 20 {
                next[(place / 64) as usize] ^= 1 << (place % 64);
            }
            hashes.push(next);
        }
        let mut fingerprints: Vec<Option<Fingerprint>> = hashes
            .into_iter()
            .map(|plain| {
                Some(Fingerprint {
                    plain,
                    mirrored: mirrored(),
                })
            })
            .collect();
        fingerprints.extend([None, None]);
        assert_eq!(search(&fingerprints, 20), [[0, 1, 2, 3, 4]]);
        assert!(search(&fingerprints, 19).is_empty());
    }

    #[test]
    fn only_byte_identical_images_are_no_near_duplicates_and_join_those_of_their_twins() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut fingerprint = || {
            Some(Fingerprint {
                plain: random_hash(&mut random),
                mirrored: random_hash(&mut random),
            })
        };
        let (one, other) = (fingerprint(), fingerprint());
        let contents = [[1; 32], [1; 32], [2; 32], [3; 32], [2; 32]];
        let search = Search {
            // The fourth looks like the third and fifth, which are one file.
            fingerprints: &[one, one, other, other, other],
            contents: &contents,
            distance: 8,
            threads: NonZeroUsize::MIN,
            background: true,
        };
        let groups = search.groups(&mut |_, _| {}, &|| false).unwrap();
        assert_eq!(groups, [[2, 3, 4]]);
        let cancelled = search.groups(&mut |_, _| {}, &|| true);
        assert!(matches!(cancelled, Err(Error::Cancelled)));
    }
}
