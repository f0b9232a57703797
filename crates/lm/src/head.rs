//! The vocabulary head. It works through blocks of rows.
//!
//! A block is a few hundred rows with their logits over the whole vocabulary. The next block overwrites them. So the
//! `N × V` logits are never stored as a whole, and yet every divergence is exact, over all V tokens. Only the rows that
//! the caller asks for are computed. There are two phases:
//!
//! 1. [`statistics`]: log-probability of the target, log-sum-exp, entropy.
//! 2. [`backward`]: the gradient, from one coefficient per row, `d loss / d logprob`, and from soft targets if there
//!    are any.
//!
//! If a row's coefficient depends only on that row, `backward` does both phases at once: it passes each row's
//! statistics to the caller's function, which returns the coefficient. If it depends on other rows, as a sequence-level
//! ratio does, the caller runs `statistics` first. [`top_k`] returns the most likely tokens, for a teacher whose
//! outputs are stored.
//!
//! The head knows no learning algorithm. The temperature divides the logits, here as in sampling.

use std::ops::Range;

use kernels::gemm::{Epilogue, matmul, matmul_transposed_a};
use kernels::ops::head::{
    Divergence, divergence_rows, head_gradient, head_statistics, sparse_forward_kl_rows, top_k_rows,
};
use kernels::ops::rows::{gather_rows, scatter_add_rows};
use kernels::{Buffer, Device, Queue, Real, Scratch, View, ViewMut};

use crate::batch::Batch;
use crate::config::Config;
use crate::model::Model;
use crate::operand::Operand;

/// Number of logits in a block, approximately, for any vocabulary.
const LOGITS_PER_BLOCK: usize = 1 << 21;
/// The most rows in a block, for a small vocabulary.
const MAX_ROWS_PER_BLOCK: usize = 512;
/// The fewest rows in a block, for a large vocabulary.
const MIN_ROWS_PER_BLOCK: usize = 16;

/// The rows that the caller asks for: `R` target tokens, and the hidden rows that predict them.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// `[R]` index `t` of the target in the batch, increasing.
    pub tokens: Vec<u32>,
    /// `[R]` index of the hidden row that predicts it, `t − 1`.
    pub hidden_rows: Vec<u32>,
    /// `[R]` token id of the target.
    pub ids: Vec<u32>,
}

impl Targets {
    /// The tokens `t` of a batch for which `wanted(t)` holds. The first token of a segment is never among them.
    pub fn of(batch: &Batch, wanted: impl Fn(usize) -> bool) -> Targets {
        let mut targets = Targets::default();
        for segment in batch.segments() {
            for t in (segment.start + 1..segment.start + segment.len).filter(|&t| wanted(t)) {
                targets.tokens.push(t as u32);
                targets.hidden_rows.push(t as u32 - 1);
                targets.ids.push(batch.tokens()[t]);
            }
        }
        targets
    }

    /// Number of target rows, `R`.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no target row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Statistics of each target row, all `[R]`, in nats, at the temperature of the call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowStatistics {
    /// Log-probability of the target.
    pub logprob: Vec<f32>,
    /// Log-sum-exp of the logits divided by the temperature.
    pub logsumexp: Vec<f32>,
    /// Entropy of the row's distribution.
    pub entropy: Vec<f32>,
    /// Divergence from the soft targets; zero if there are none.
    pub divergence: Vec<f32>,
}

impl RowStatistics {
    fn zeros(rows: usize) -> Self {
        let zeros = vec![0.0; rows];
        Self { logprob: zeros.clone(), logsumexp: zeros.clone(), entropy: zeros.clone(), divergence: zeros }
    }
}

/// Soft targets: a distribution that each row's own distribution is trained to approach, in addition to the target
/// token or instead of it.
pub struct Soft<'a, T: Real> {
    /// Where the distribution comes from.
    pub source: SoftSource<'a, T>,
    /// The temperature of the divergence; it divides the logits of both distributions.
    pub temperature: f32,
    /// `[R]` weight of each row's divergence in the loss.
    pub weight: &'a [f32],
}

/// Where soft targets come from.
pub enum SoftSource<'a, T: Real> {
    /// A local teacher. Its head is applied to its hidden rows of the same batch (`[N, C of the teacher]`), block by
    /// block, so the divergence is exact.
    Teacher {
        /// The teacher.
        model: &'a Model<T>,
        /// Its hidden rows.
        hidden: View<'a, T>,
        /// The kind of divergence.
        divergence: Divergence,
    },
    /// The most likely tokens of a stored teacher. All other tokens form one bucket with the rest of the probability.
    /// The divergence is the forward KL.
    TopK {
        /// `[R, k]` token ids.
        ids: View<'a, u32>,
        /// `[R, k]` log-probabilities at the divergence's temperature.
        logprobs: View<'a, f32>,
    },
}

/// Memory of the head for one block of rows.
pub struct HeadBuffers<T: Real> {
    rows_per_block: usize,
    gathered: Buffer<T>,
    logits: Buffer<f32>,
    logits_teacher: Buffer<f32>,
    gathered_teacher: Buffer<T>,
    /// The gradient of the logits in the dtype of products; used if there are no soft targets.
    d_logits: Buffer<T>,
    /// The same gradient in f32, to which the gradient of soft targets is added; and the copy of it that products read.
    d_logits_sum: Buffer<f32>,
    d_operand: Operand<T>,
    d_rows: Buffer<f32>,
}

impl<T: Real> HeadBuffers<T> {
    /// Memory for one block of rows with `config`'s vocabulary. The memory for backward, for soft targets and for a
    /// local teacher is allocated when it is first needed.
    pub fn new(device: Device, config: &Config) -> Self {
        let fitting = (LOGITS_PER_BLOCK / config.vocab_size).clamp(MIN_ROWS_PER_BLOCK, MAX_ROWS_PER_BLOCK);
        let rows = fitting / 16 * 16;
        Self {
            rows_per_block: rows,
            gathered: Buffer::zeros(device, rows * config.hidden_size),
            logits: Buffer::zeros(device, rows * config.vocab_size),
            logits_teacher: Buffer::zeros(device, 0),
            gathered_teacher: Buffer::zeros(device, 0),
            d_logits: Buffer::zeros(device, 0),
            d_logits_sum: Buffer::zeros(device, 0),
            d_operand: Operand::new(device, 0),
            d_rows: Buffer::zeros(device, 0),
        }
    }

    fn blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        let per_block = self.rows_per_block;
        (0..rows.div_ceil(per_block)).map(move |i| i * per_block..((i + 1) * per_block).min(rows))
    }

    fn reserve_backward(&mut self, device: Device, config: &Config, soft: bool) {
        let logits = self.rows_per_block * config.vocab_size;
        if self.d_rows.is_empty() {
            self.d_rows = Buffer::zeros(device, self.rows_per_block * config.hidden_size);
        }
        if soft && self.d_logits_sum.is_empty() {
            (self.d_logits_sum, self.d_operand) = (Buffer::zeros(device, logits), Operand::new(device, logits));
        } else if !soft && self.d_logits.is_empty() {
            self.d_logits = Buffer::zeros(device, logits);
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.gathered.size_bytes()
            + self.gathered_teacher.size_bytes()
            + self.d_logits.size_bytes()
            + [&self.logits, &self.logits_teacher, &self.d_logits_sum, &self.d_rows]
                .iter()
                .map(|b| b.size_bytes())
                .sum::<usize>()
            + self.d_operand.size_bytes()
    }
}

/// Phase one: the statistics of the target rows.
///
/// # Shapes and units
/// * `hidden`: `[N, C]`, from a forward pass over the batch from which the targets were taken.
/// * `temperature` divides the logits.
/// * returns four arrays `[R]`, in nats; the divergences are zero.
pub fn statistics<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    hidden: View<T>,
    targets: &Targets,
    temperature: f32,
    buffers: &mut HeadBuffers<T>,
) -> RowStatistics {
    let mut statistics = RowStatistics::zeros(targets.len());
    for block in buffers.blocks(targets.len()) {
        logits_of(
            queue,
            model,
            hidden,
            &targets.hidden_rows[block.clone()],
            &mut buffers.gathered,
            &mut buffers.logits,
        );
        block_statistics(queue, model, targets, temperature, block, &buffers.logits, &mut statistics);
    }
    statistics
}

/// The `k` most likely tokens at each target row, most likely first, with their log-probabilities.
///
/// # Shapes and units
/// * `hidden`: `[N, C]`; `k` ≤ V; `temperature` divides the logits.
/// * returns ids and log-probabilities in nats, `[R, k]` each.
pub fn top_k<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    hidden: View<T>,
    targets: &Targets,
    temperature: f32,
    k: usize,
    buffers: &mut HeadBuffers<T>,
) -> (Vec<u32>, Vec<f32>) {
    let (mut ids, mut logprobs) = (Vec::with_capacity(targets.len() * k), Vec::with_capacity(targets.len() * k));
    for block in buffers.blocks(targets.len()) {
        let (rows, count) = (&targets.hidden_rows[block.clone()], block.len());
        logits_of(queue, model, hidden, rows, &mut buffers.gathered, &mut buffers.logits);
        let mut block_ids = Buffer::zeros(queue.device(), count * k);
        let mut block_logprobs = Buffer::zeros(queue.device(), count * k);
        top_k_rows(
            queue,
            buffers.logits.matrix(count, model.config().vocab_size),
            temperature,
            k,
            block_ids.view_mut().reshape(count, k),
            block_logprobs.view_mut().reshape(count, k),
        );
        ids.extend(block_ids.to_host());
        logprobs.extend(block_logprobs.to_host());
    }
    (ids, logprobs)
}

/// The logits of some hidden rows, `[rows, V]`, at the start of `logits`.
fn logits_of<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    hidden: View<T>,
    rows: &[u32],
    gathered: &mut Buffer<T>,
    logits: &mut Buffer<f32>,
) {
    let (count, width) = (rows.len(), model.config().hidden_size);
    gather_rows(queue, hidden, queue.upload(rows).view(), gathered.matrix_mut(count, width));
    let logits = logits.matrix_mut(count, model.config().vocab_size);
    matmul(queue, gathered.matrix(count, width), model.head(), Epilogue::default(), logits);
}

/// Writes a block's statistics. Returns its log-sum-exps, which the gradient needs.
fn block_statistics<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    targets: &Targets,
    temperature: f32,
    block: Range<usize>,
    logits: &Buffer<f32>,
    statistics: &mut RowStatistics,
) -> Buffer<f32> {
    let count = block.len();
    let [mut logprob, mut logsumexp, mut entropy] = [(); 3].map(|()| Buffer::zeros(queue.device(), count));
    head_statistics(
        queue,
        logits.matrix(count, model.config().vocab_size),
        queue.upload(&targets.ids[block.clone()]).view(),
        temperature,
        logprob.view_mut(),
        logsumexp.view_mut(),
        entropy.view_mut(),
    );
    logprob.view().copy_to_host(&mut statistics.logprob[block.clone()]);
    logsumexp.view().copy_to_host(&mut statistics.logsumexp[block.clone()]);
    entropy.view().copy_to_host(&mut statistics.entropy[block]);
    logsumexp
}

/// Both phases at once: statistics, coefficients, gradient.
///
/// # Shapes and units
/// * `hidden`: `[N, C]`.
/// * `coefficient(r, logprob, entropy)`: returns `d loss / d logprob` of row `r`; for cross-entropy it is minus the
///   weight.
/// * `d_hidden`: `[N, C]`, **accumulated**.
/// * `d_head`: `[V, C]`, **accumulated**. It is the embedding's gradient if the two are tied, and `None` if the head is
///   not trained.
/// * returns the rows' statistics in nats; the divergences are not multiplied by their weights.
///
/// # Panics
/// When the model was built for inference, or a local teacher has a vocabulary of another size.
pub fn backward<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    hidden: View<T>,
    targets: &Targets,
    temperature: f32,
    mut coefficient: impl FnMut(usize, f32, f32) -> f32,
    soft: Option<&Soft<T>>,
    mut d_hidden: ViewMut<f32>,
    mut d_head: Option<ViewMut<f32>>,
    buffers: &mut HeadBuffers<T>,
    scratch: &mut Scratch,
) -> RowStatistics {
    let (width, vocabulary) = (model.config().hidden_size, model.config().vocab_size);
    buffers.reserve_backward(queue.device(), model.config(), soft.is_some());
    let mut statistics = RowStatistics::zeros(targets.len());
    for block in buffers.blocks(targets.len()) {
        let count = block.len();
        let rows = &targets.hidden_rows[block.clone()];
        logits_of(queue, model, hidden, rows, &mut buffers.gathered, &mut buffers.logits);
        let logsumexp =
            block_statistics(queue, model, targets, temperature, block.clone(), &buffers.logits, &mut statistics);
        let coefficients: Vec<f32> =
            block.clone().map(|r| coefficient(r, statistics.logprob[r], statistics.entropy[r])).collect();
        let (ids, coefficients) = (queue.upload(&targets.ids[block.clone()]), queue.upload(&coefficients));
        let (ids, coefficients) = (ids.view(), coefficients.view());
        let logits = buffers.logits.matrix(count, vocabulary);
        let d_logits = if let Some(soft) = soft {
            let d_logits = buffers.d_logits_sum.matrix_mut(count, vocabulary);
            head_gradient(queue, logits, ids, logsumexp.view(), coefficients, temperature, d_logits);
            soften(queue, soft, rows, block, buffers, &mut statistics, vocabulary);
            buffers.d_operand.of(queue, buffers.d_logits_sum.matrix(count, vocabulary))
        } else {
            let d_logits = buffers.d_logits.matrix_mut(count, vocabulary);
            head_gradient(queue, logits, ids, logsumexp.view(), coefficients, temperature, d_logits);
            buffers.d_logits.matrix(count, vocabulary)
        };
        let d_rows = buffers.d_rows.matrix_mut(count, width);
        matmul(queue, d_logits, model.head_backward(), Epilogue::default(), d_rows);
        if let Some(d_head) = &mut d_head {
            let gathered = buffers.gathered.matrix(count, width);
            matmul_transposed_a(queue, d_logits, gathered, d_head.reborrow(), true, scratch);
        }
        let index = queue.upload(rows);
        scatter_add_rows(queue, buffers.d_rows.matrix(count, width), index.view(), d_hidden.reborrow());
    }
    statistics
}

/// Adds the gradient of a block's soft targets to `d_logits_sum`.
fn soften<T: Real>(
    queue: &Queue,
    soft: &Soft<T>,
    rows: &[u32],
    block: Range<usize>,
    buffers: &mut HeadBuffers<T>,
    statistics: &mut RowStatistics,
    vocabulary: usize,
) {
    let count = rows.len();
    let weight = queue.upload(&soft.weight[block.clone()]);
    let mut value = Buffer::zeros(queue.device(), count);
    match &soft.source {
        SoftSource::Teacher { model, hidden, divergence } => {
            assert_eq!(model.config().vocab_size, vocabulary, "teacher and student must share a vocabulary");
            let width = model.config().hidden_size;
            if buffers.gathered_teacher.len() < buffers.rows_per_block * width {
                buffers.gathered_teacher = Buffer::zeros(queue.device(), buffers.rows_per_block * width);
                buffers.logits_teacher = Buffer::zeros(queue.device(), buffers.rows_per_block * vocabulary);
            }
            logits_of(queue, model, *hidden, rows, &mut buffers.gathered_teacher, &mut buffers.logits_teacher);
            divergence_rows(
                queue,
                buffers.logits.matrix(count, vocabulary),
                buffers.logits_teacher.matrix(count, vocabulary),
                *divergence,
                soft.temperature,
                weight.view(),
                value.view_mut(),
                buffers.d_logits_sum.matrix_mut(count, vocabulary),
            );
        }
        SoftSource::TopK { ids, logprobs } => sparse_forward_kl_rows(
            queue,
            buffers.logits.matrix(count, vocabulary),
            ids.row_range(block.clone()),
            logprobs.row_range(block.clone()),
            soft.temperature,
            weight.view(),
            value.view_mut(),
            buffers.d_logits_sum.matrix_mut(count, vocabulary),
        ),
    }
    value.view().copy_to_host(&mut statistics.divergence[block]);
}
