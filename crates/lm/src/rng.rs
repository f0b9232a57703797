//! Counter-based random numbers: value `i` of a stream is a function of the stream's key and `i`, of nothing else.
//!
//! A stream is keyed by what it is for — (seed, stage, step, record, sample, position) — never by a thread or a batch slot,
//! so that neither batching nor preemption nor a restart changes a draw. The mixing function is SplitMix64's finaliser
//! (Steele, Lea & Flood 2014), applied to the key's words in turn and then to a Weyl sequence.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    key: u64,
    counter: u64,
}

impl Rng {
    /// The stream of a key; the order of the words matters.
    pub fn keyed(words: &[u64]) -> Rng {
        let key =
            words.iter().fold(GOLDEN, |key, &word| mix(key ^ mix(word.wrapping_add(GOLDEN))).wrapping_add(GOLDEN));
        Rng { key, counter: 0 }
    }

    /// A word of a key made from text, such as a record's id.
    pub fn word(text: &str) -> u64 {
        text.bytes().fold(text.len() as u64, |hash, byte| mix(hash.wrapping_add(GOLDEN) ^ u64::from(byte)))
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box–Muller; one of the pair is used, so that draws stay independent of their order).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Uniform below `n`, without bias.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a choice among nothing");
        let n = n as u64;
        let zone = u64::MAX - (u64::MAX % n + 1) % n;
        loop {
            let bits = self.next_u64();
            if bits <= zone {
                return (bits % n) as usize;
            }
        }
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut rng = Rng::keyed(&[7, 1]);
        let n = 200_000;
        let (mut uniform, mut normal, mut square) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            uniform += rng.uniform();
            let x = rng.normal();
            normal += x;
            square += x * x;
        }
        let n = f64::from(n);
        assert!((uniform / n - 0.5).abs() < 0.003);
        assert!((normal / n).abs() < 0.01);
        assert!((square / n - 1.0).abs() < 0.02);
    }

    #[test]
    fn keys_differ_in_order_and_length() {
        let first = |words: &[u64]| Rng::keyed(words).next_u64();
        let all = [first(&[]), first(&[0]), first(&[0, 0]), first(&[1, 2]), first(&[2, 1]), first(&[1, 2, 0])];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| b != a));
        }
    }

    #[test]
    fn below_reaches_every_value() {
        let mut rng = Rng::keyed(&[3]);
        let mut seen = [0; 5];
        (0..1000).for_each(|_| seen[rng.below(5)] += 1);
        assert!(seen.iter().all(|&count| count > 150));
    }
}
