//! Drawing on vectors.

use crate::simd::{Kernel, Simd, exp};
use crate::{Queue, View, ViewMut};

/// Weights are summed in chunks of this many tokens. The search for the token then looks into one chunk only.
const CHUNK: usize = 256;

pub(super) fn draw_rows(queue: &Queue, logits: View<f32>, temperature: &[f32], uniform: &[f32], ids: ViewMut<u32>) {
    let isa = queue.isa();
    queue.parallel(logits.rows(), |row| {
        let id = isa.run(Draw { logits: logits.row(row), temperature: temperature[row], uniform: uniform[row] });
        // SAFETY: `row` lies in `ids`, and no other task has it.
        unsafe { *ids.as_mut_ptr().add(row) = id };
    });
}

struct Draw<'a> {
    logits: &'a [f32],
    temperature: f32,
    uniform: f32,
}

impl Kernel for Draw<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u32 {
        let greatest = greatest(s, self.logits);
        if self.temperature <= 0.0 {
            return self.logits.iter().position(|&x| x == greatest).unwrap_or(0) as u32;
        }
        let scale = 1.0 / self.temperature;
        let mut weights = [0.0f32; CHUNK];
        let mut total = 0.0f64;
        for chunk in self.logits.chunks(CHUNK) {
            total += f64::from(weigh(s, chunk, greatest, scale, &mut weights));
        }
        let target = f64::from(self.uniform) * total;
        let mut below = 0.0f64;
        for (index, chunk) in self.logits.chunks(CHUNK).enumerate() {
            let sum = f64::from(weigh(s, chunk, greatest, scale, &mut weights));
            if below + sum > target {
                for (i, &weight) in weights[..chunk.len()].iter().enumerate() {
                    below += f64::from(weight);
                    if below > target {
                        return (index * CHUNK + i) as u32;
                    }
                }
                // Because of rounding, the target lies past the last weight. Take the last token of the chunk that has
                // a weight.
                let last = weights[..chunk.len()].iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
                return (index * CHUNK + last) as u32;
            }
            below += sum;
        }
        self.logits.iter().position(|&x| x == greatest).unwrap_or(0) as u32
    }
}

#[inline(always)]
fn greatest<S: Simd>(s: S, row: &[f32]) -> f32 {
    let mut most = s.splat(f32::NEG_INFINITY);
    let whole = row.len() / S::LANES * S::LANES;
    let mut i = 0;
    while i < whole {
        // SAFETY: `LANES` elements from `i` on lie in the row.
        most = s.max(unsafe { s.load_f32(row.as_ptr().add(i)) }, most);
        i += S::LANES;
    }
    let rest = row.len() - whole;
    if rest > 0 {
        // SAFETY: `rest` elements from `whole` on lie in the row.
        let tail = unsafe { s.load_f32_partial(row.as_ptr().add(whole), rest) };
        most = s.max(s.select(s.first(rest), tail, s.splat(f32::NEG_INFINITY)), most);
    }
    s.reduce_max(most)
}

/// Writes a chunk's weights and returns their sum.
#[inline(always)]
fn weigh<S: Simd>(s: S, chunk: &[f32], greatest: f32, scale: f32, weights: &mut [f32; CHUNK]) -> f32 {
    let (greatest, scale) = (s.splat(greatest), s.splat(scale));
    let mut sum = s.zero();
    let mut i = 0;
    while i < chunk.len() {
        let count = S::LANES.min(chunk.len() - i);
        // SAFETY: `count` elements from `i` on lie in the chunk, and `CHUNK` is at least as long.
        unsafe {
            let x = s.load_f32_partial(chunk.as_ptr().add(i), count);
            let weight = exp(s, s.mul(s.sub(x, greatest), scale));
            let weight = s.select(s.first(count), weight, s.zero());
            s.store_f32_partial(weights.as_mut_ptr().add(i), weight, count);
            sum = s.add(sum, weight);
        }
        i += S::LANES;
    }
    s.reduce_add(sum)
}
