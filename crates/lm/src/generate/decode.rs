//! The decoder over a cache: the operations of `forward.rs`, on rows that belong to many sequences at once.
//!
//! A row is one token at one position of one sequence; a prompt is many rows of one sequence, a decode step one row of
//! each. Nothing is kept for backward. The values of a row are bit-equal to those of the full forward.

use kernels::gemm::{Epilogue, matmul};
use kernels::ops::attention::{PagedRow, attention_paged, cache_write};
use kernels::ops::embedding::embedding_forward;
use kernels::ops::head_norm::head_norm_forward;
use kernels::ops::rmsnorm::rmsnorm_forward;
use kernels::ops::rotary::rotary_forward;
use kernels::ops::swiglu::swiglu_forward;
use kernels::{Buffer, Device, Queue, Real};

use super::kv_cache::{KvCache, PAGE};
use crate::config::Config;
use crate::forward::{split_qkv, split_qkv_mut};
use crate::model::{Layer, Model};

/// The rows of one step.
#[derive(Default)]
pub(crate) struct Rows {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Their positions.
    pub positions: Vec<u32>,
    /// Sequence (index into the page tables) and position again, as attention wants them.
    pub places: Vec<PagedRow>,
}

impl Rows {
    pub fn push(&mut self, token: u32, sequence: usize, position: usize) {
        self.tokens.push(token);
        self.positions.push(position as u32);
        self.places.push(PagedRow { sequence, position });
    }
}

/// Memory of one step over at most `capacity` rows.
pub(crate) struct StepBuffers<T: Real> {
    pub capacity: usize,
    x: Buffer<f32>,
    normed: Buffer<T>,
    qkv_plain: Buffer<T>,
    qkv: Buffer<T>,
    attended: Buffer<T>,
    gate_up: Buffer<T>,
    activated: Buffer<T>,
    statistics: Buffer<f32>,
    pub hidden: Buffer<T>,
}

impl<T: Real> StepBuffers<T> {
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let qkv = config.query_size() + 2 * config.key_value_size();
        Self {
            capacity,
            x: Buffer::zeros(device, 2 * capacity * hidden),
            normed: Buffer::zeros(device, capacity * hidden),
            qkv_plain: Buffer::zeros(device, if config.qk_norm() { capacity * qkv } else { 0 }),
            qkv: Buffer::zeros(device, capacity * qkv),
            attended: Buffer::zeros(device, capacity * config.query_size()),
            gate_up: Buffer::zeros(device, capacity * 2 * inner),
            activated: Buffer::zeros(device, capacity * inner),
            statistics: Buffer::zeros(device, capacity * config.num_attention_heads),
            hidden: Buffer::zeros(device, capacity * hidden),
        }
    }
}

/// Runs the rows through the decoder, writes their keys and values to the cache, and leaves `[R, C]` in `buffers.hidden`.
pub(crate) fn step<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    rows: &Rows,
    tables: &[&[u32]],
    cache: &mut KvCache<T>,
    buffers: &mut StepBuffers<T>,
) {
    let (config, count) = (model.config(), rows.tokens.len());
    assert!(count <= buffers.capacity, "{count} rows in a step for {}", buffers.capacity);
    let hidden = config.hidden_size;
    let slots: Vec<(u32, u32)> = rows
        .places
        .iter()
        .map(|place| (tables[place.sequence][place.position / PAGE], (place.position % PAGE) as u32))
        .collect();
    let (x, middle) = buffers.x.matrix_mut(2 * buffers.capacity, hidden).split_rows(buffers.capacity);
    let (mut x, mut middle) = (x.row_range(0..count), middle.row_range(0..count));
    embedding_forward(queue, queue.upload(&rows.tokens).view(), model.embedding_matrix(), x.reborrow());
    let generation = model.generation();
    let eps = config.rms_norm_eps as f32;
    for (index, layer) in model.layers.iter().enumerate() {
        let normed = buffers.normed.matrix_mut(count, hidden);
        rmsnorm_forward(
            queue,
            x.as_view(),
            layer.input_norm.view(),
            eps,
            normed,
            buffers.statistics.matrix_mut(1, count),
        );
        project(
            queue,
            model,
            layer,
            rows,
            &mut buffers.normed,
            &mut buffers.qkv_plain,
            &mut buffers.qkv,
            &mut buffers.statistics,
        );
        let qkv_size = config.query_size() + 2 * config.key_value_size();
        let (query, key, value) = split_qkv(config, buffers.qkv.matrix(count, qkv_size));
        let value = match config.qk_norm() {
            true => split_qkv(config, buffers.qkv_plain.matrix(count, qkv_size)).2,
            false => value,
        };
        cache_write(queue, key, value, &slots, &mut cache.layers[index]);
        let attended = buffers.attended.matrix_mut(count, config.query_size());
        attention_paged(
            queue,
            query,
            &rows.places,
            tables,
            &cache.layers[index],
            config.head_dim,
            model.attention_scale(),
            attended,
        );
        let epilogue = Epilogue { bias: None, addend: Some(x.as_view()) };
        let attended = buffers.attended.matrix(count, config.query_size());
        matmul(queue, attended, layer.output.forward(generation), epilogue, middle.reborrow());

        let normed = buffers.normed.matrix_mut(count, hidden);
        let rstd = buffers.statistics.matrix_mut(1, count);
        rmsnorm_forward(queue, middle.as_view(), layer.post_attention_norm.view(), eps, normed, rstd);
        let gate_up = buffers.gate_up.matrix_mut(count, 2 * config.intermediate_size);
        let normed = buffers.normed.matrix(count, hidden);
        matmul(queue, normed, layer.gate_up.forward(generation), Epilogue::default(), gate_up);
        let gate_up = buffers.gate_up.matrix(count, 2 * config.intermediate_size);
        swiglu_forward(queue, gate_up, buffers.activated.matrix_mut(count, config.intermediate_size));
        let activated = buffers.activated.matrix(count, config.intermediate_size);
        let epilogue = Epilogue { bias: None, addend: Some(middle.as_view()) };
        matmul(queue, activated, layer.down.forward(generation), epilogue, x.reborrow());
    }
    let out = buffers.hidden.matrix_mut(count, hidden);
    rmsnorm_forward(queue, x.as_view(), model.final_norm.view(), eps, out, buffers.statistics.matrix_mut(1, count));
}

/// Queries and keys, normed where the family does so, and rotated; values beside them.
fn project<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    layer: &Layer<T>,
    rows: &Rows,
    normed: &mut Buffer<T>,
    qkv_plain: &mut Buffer<T>,
    qkv: &mut Buffer<T>,
    statistics: &mut Buffer<f32>,
) {
    let (config, count) = (model.config(), rows.tokens.len());
    let qkv_size = config.query_size() + 2 * config.key_value_size();
    let epilogue = Epilogue { bias: layer.qkv_bias.as_ref().map(Buffer::view), addend: None };
    let projected = if layer.qk_norm.is_some() { &mut *qkv_plain } else { &mut *qkv };
    let normed = normed.matrix(count, config.hidden_size);
    matmul(queue, normed, layer.qkv.forward(model.generation()), epilogue, projected.matrix_mut(count, qkv_size));
    if let Some((query_norm, key_norm)) = &layer.qk_norm {
        let eps = config.rms_norm_eps as f32;
        let (query, key, _) = split_qkv(config, qkv_plain.matrix(count, qkv_size));
        let (query_out, key_out, _) = split_qkv_mut(config, qkv.matrix_mut(count, qkv_size));
        let rstd = statistics.matrix_mut(count, config.num_attention_heads);
        head_norm_forward(queue, query, query_norm.view(), eps, query_out, rstd);
        let rstd = statistics.matrix_mut(count, config.num_key_value_heads);
        head_norm_forward(queue, key, key_norm.view(), eps, key_out, rstd);
    }
    let (query, key, _) = split_qkv_mut(config, qkv.matrix_mut(count, qkv_size));
    let positions = queue.upload(&rows.positions);
    rotary_forward(queue, query, positions.view(), model.rotary_matrix());
    rotary_forward(queue, key, positions.view(), model.rotary_matrix());
}
