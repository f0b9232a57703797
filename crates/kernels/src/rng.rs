//! Counter-based random numbers: a number is a pure function of a key and a position.
//!
//! A [`Key`] is made from a seed and then narrowed by labels (a stage, a record's id, a sample's index). It holds no
//! state and can be copied freely, so no draw depends on the order in which threads make it. A [`Stream`] goes through
//! the positions of one key. A key never contains a batch slot, and nothing comes from the clock or the system.
//!
//! The mixing function is SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
//! generators"), applied to the key and the position. It is good for data and sampling, and unfit for cryptography.

/// A node in the tree of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// SplitMix64's increment: 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser, a bijection of 64 bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Key {
    /// The root key of a seed.
    pub fn new(seed: u64) -> Key {
        Key(mix(seed.wrapping_add(GOLDEN)))
    }

    /// The key below this one for a number: a step, an index, a position.
    pub fn number(self, number: u64) -> Key {
        Key(mix(self.0.rotate_left(23) ^ mix(number.wrapping_mul(GOLDEN).wrapping_add(0x1d))))
    }

    /// The key below this one for a word: a stage, a record's id.
    pub fn word(self, word: &str) -> Key {
        // FNV-1a spreads the bytes; `number` mixes the result.
        let hash = word
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.number(hash ^ (word.len() as u64).rotate_left(56))
    }

    /// The 64 random bits at a position of this key.
    pub fn bits(self, position: u64) -> u64 {
        mix(self.0.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// A number in `[0, 1)` at a position of this key; it is a multiple of 2⁻⁵³.
    pub fn unit(self, position: u64) -> f64 {
        (self.bits(position) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The stream of this key's positions, from 0.
    pub fn stream(self) -> Stream {
        Stream { key: self, position: 0 }
    }
}

/// Successive draws below one key.
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    position: u64,
}

impl Stream {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let bits = self.key.bits(self.position);
        self.position += 1;
        bits
    }

    /// The next number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal number, by Box–Muller. The second number of the pair is not used, so a draw takes two
    /// positions.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// An integer in `[0, n)`, by multiplication. Its bias is below n · 2⁻⁶⁴.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "Stream::below: nothing to choose from");
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// An integer in `[low, high]`, both ends included.
    ///
    /// # Panics
    /// When `low > high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "Stream::between: {low} > {high}");
        low + self.below((high - low) as u64 + 1) as i64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One element of a slice.
    ///
    /// # Panics
    /// When the slice is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Puts the slice in random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_pure_function_of_its_path() {
        let a = Key::new(7).word("judgment").number(3);
        assert_eq!(a.bits(5), Key::new(7).word("judgment").number(3).bits(5));
        assert_ne!(a.bits(5), Key::new(8).word("judgment").number(3).bits(5));
        assert_ne!(a.bits(5), Key::new(7).word("judgement").number(3).bits(5));
        assert_ne!(a.bits(5), Key::new(7).number(3).word("judgment").bits(5));
        assert_ne!(a.bits(5), a.bits(6));
    }

    #[test]
    fn draws_are_even() {
        let mut stream = Key::new(1).stream();
        let mut counts = [0u32; 10];
        let mut sum = 0.0;
        for _ in 0..100_000 {
            counts[stream.below(10) as usize] += 1;
            sum += stream.unit();
        }
        // The standard deviation of a count is 95, that of the mean 0.0009.
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert!((sum / 100_000.0 - 0.5).abs() < 0.005);
    }

    #[test]
    fn neighbouring_keys_are_not_correlated() {
        let matches = (0..100_000u64)
            .filter(|&i| Key::new(0).number(i).unit(0) < 0.5 && Key::new(0).number(i + 1).unit(0) < 0.5)
            .count();
        assert!((24_000..26_000).contains(&matches), "{matches}");
    }

    #[test]
    fn normal_draws_have_the_moments() {
        let mut stream = Key::new(3).stream();
        let draws: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let square = draws.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.015 && (square - 1.0).abs() < 0.02, "{mean} {square}");
    }

    #[test]
    fn a_shuffle_keeps_every_element() {
        let mut items: Vec<u32> = (0..50).collect();
        Key::new(2).stream().shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
