//! Reference implementation in f64, one row at a time, with the gradients written out.

use super::Segment;

/// Shapes of a test problem.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub segments: Vec<Segment>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f64,
}

impl Shape {
    /// The rows that row `offset` of a segment sees.
    fn seen(&self, segment: usize, offset: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = Vec::new();
        let mut next = self.segments[segment].parent;
        while let Some(i) = next {
            rows.splice(0..0, self.segments[i].rows());
            next = self.segments[i].parent;
        }
        rows.extend(self.segments[segment].rows().take(offset + 1));
        rows
    }

    fn at(&self, row: usize, head: usize, heads: usize) -> std::ops::Range<usize> {
        let start = (row * heads + head) * self.head_dim;
        start..start + self.head_dim
    }

    fn each_query(&self, mut visit: impl FnMut(usize, usize, &[usize])) {
        for (index, segment) in self.segments.iter().enumerate() {
            for offset in 0..segment.len {
                let seen = self.seen(index, offset);
                (0..self.heads).for_each(|head| visit(segment.start + offset, head, &seen));
            }
        }
    }

    fn scores(&self, q: &[f64], k: &[f64], row: usize, head: usize, seen: &[usize]) -> Vec<f64> {
        let q = &q[self.at(row, head, self.heads)];
        let kv = head / (self.heads / self.kv_heads);
        seen.iter().map(|&j| dot(q, &k[self.at(j, kv, self.kv_heads)]) * self.scale).collect()
    }

    /// Output and log-sum-exp.
    pub fn forward(&self, q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / self.head_dim]);
        self.each_query(|row, head, seen| {
            let kv = head / (self.heads / self.kv_heads);
            let scores = self.scores(q, k, row, head, seen);
            let log = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
            lse[row * self.heads + head] = log;
            for (score, &j) in scores.iter().zip(seen) {
                for (out, v) in out[self.at(row, head, self.heads)].iter_mut().zip(&v[self.at(j, kv, self.kv_heads)]) {
                    *out += (score - log).exp() * v;
                }
            }
        });
        (out, lse)
    }

    /// Gradients of q, k and v.
    pub fn backward(&self, q: &[f64], k: &[f64], v: &[f64], d_out: &[f64]) -> [Vec<f64>; 3] {
        let (out, lse) = self.forward(q, k, v);
        let [mut d_q, mut d_k, mut d_v] = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
        self.each_query(|row, head, seen| {
            let at = self.at(row, head, self.heads);
            let delta = dot(&d_out[at.clone()], &out[at.clone()]);
            let scores = self.scores(q, k, row, head, seen);
            for (score, &j) in scores.iter().zip(seen) {
                let kv = self.at(j, head / (self.heads / self.kv_heads), self.kv_heads);
                let p = (score - lse[row * self.heads + head]).exp();
                let d_s = p * (dot(&d_out[at.clone()], &v[kv.clone()]) - delta) * self.scale;
                for (query, key) in at.clone().zip(kv) {
                    d_q[query] += d_s * k[key];
                    d_k[key] += d_s * q[query];
                    d_v[key] += p * d_out[query];
                }
            }
        });
        [d_q, d_k, d_v]
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
