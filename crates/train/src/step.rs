//! The one training step: accumulate micro-batches, clip, update, repack.
//!
//! A [`Learner`] owns everything of one model that training changes. It takes batches with [`Signals`] and knows no
//! algorithm: a stage decides what each token learns from, and the learner knows how the optimiser works. Every loss of
//! Ferule is a sum of the columns of [`Signals`].
//!
//! Read next: [`crate::stages::sft`], the simplest stage, then `lm::head`, where the signals become gradients.

mod hidden;
mod rows;

use kernels::ops::elementwise::zero;
use kernels::ops::head::Divergence;
use kernels::rng::Key;
use kernels::{Buffer, Queue, Real, Scratch};
use lm::backward::{BackwardBuffers, Gradients, TapGradient, backward};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, RowStatistics, Soft, SoftSource, Targets};
use lm::lora::{Adapters, LoraConfig};
use lm::optimizer::{Hyperparameters, Optimizer};
use lm::{Activations, Arena, Batch, Keep, Model, Role};

pub use hidden::HiddenSignal;
pub use rows::{RowLoss, RowReport};

use hidden::Matching;

/// The losses on the tokens of one batch. The columns add up. Each is `[N]`, and element `t` belongs to `tokens[t]`.
pub struct Signals<'a, T: Real> {
    /// Weight of the cross-entropy of each token; 0 if it is not a target.
    pub cross_entropy: Vec<f32>,
    /// A loss with one coefficient per row: a policy gradient or a preference loss.
    pub rows: Option<&'a dyn RowLoss>,
    /// A divergence from a teacher's distribution.
    pub soft: Option<SoftSignal<'a, T>>,
    /// The error against a teacher's hidden states.
    pub hidden: Option<HiddenSignal<'a>>,
    /// Divides the logits, in every column.
    pub temperature: f32,
}

/// Soft labels: a teacher's distribution at every token with a weight.
pub struct SoftSignal<'a, T: Real> {
    /// Where the distribution comes from.
    pub labels: SoftLabels<'a, T>,
    /// `[N]` weight of each token's divergence.
    pub weight: Vec<f32>,
}

/// Where soft labels come from.
pub enum SoftLabels<'a, T: Real> {
    /// A local teacher that has run forward over the same batch.
    Teacher {
        /// The teacher.
        model: &'a Model<T>,
        /// Its activations.
        activations: &'a Activations<T>,
        /// The divergence that is minimised.
        divergence: Divergence,
    },
    /// The teacher's most likely tokens, and the rest of its probability as one bucket. The divergence is forward KL.
    TopK {
        /// Tokens per row.
        k: usize,
        /// `[N, k]` token ids; those of a row differ.
        ids: Vec<u32>,
        /// `[N, k]` log-probabilities at the signals' temperature, in nats.
        logprobs: Vec<f32>,
    },
}

impl<T: Real> Signals<'_, T> {
    /// Cross-entropy alone, with the given weights.
    pub fn cross_entropy(weights: Vec<f32>) -> Self {
        Self { cross_entropy: weights, ..Self::none(0, 1.0) }
    }

    /// No signal on any of `tokens` tokens. Stages start from it and fill in the columns that they need.
    pub fn none(tokens: usize, temperature: f32) -> Self {
        Self { cross_entropy: vec![0.0; tokens], rows: None, soft: None, hidden: None, temperature }
    }

    fn is_target(&self, t: usize) -> bool {
        self.cross_entropy[t] != 0.0
            || self.rows.is_some_and(|loss| loss.trained()[t])
            || self.soft.as_ref().is_some_and(|soft| soft.weight[t] != 0.0)
            || self.hidden.as_ref().is_some_and(|hidden| hidden.weight[t] != 0.0)
    }
}

/// What happened in a step, summed over its micro-batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Weighted loss, all columns.
    pub loss: f64,
    /// Rows that had a signal.
    pub targets: usize,
    /// Packed tokens that went through the model.
    pub tokens: usize,
    /// Pairs of a query and a key that attention looked at.
    pub attention_pairs: usize,
    /// Sum of the targets' entropies, in nats.
    pub entropy: f64,
    /// Weighted mean divergence from soft targets, in nats.
    pub divergence: f64,
    /// Weighted squared error against the teacher's hidden states, divided by their mean square.
    pub hidden_error: f64,
    /// What the [`RowLoss`] reported.
    pub rows: RowReport,
    /// Global norm of the gradient before clipping. If it is not finite, the update was not made.
    pub gradient_norm: f32,
    /// The first element of the gradient that is NaN or infinite, if there is one.
    pub not_finite: Option<String>,
}

impl StepReport {
    /// Mean entropy of the targets, in nats; none without a target.
    pub fn mean_entropy(&self) -> Option<f64> {
        (self.targets > 0).then(|| self.entropy / self.targets as f64)
    }

    /// Reports several updates on one batch as one step: the sums of the counts, and the means of the losses and the
    /// gradient norm. None without updates.
    pub fn of_updates(updates: &[StepReport]) -> Option<StepReport> {
        let n = updates.len() as f64;
        let mut all = updates.iter().cloned().reduce(|mut a, b| {
            a.rows.add(b.rows);
            StepReport {
                loss: a.loss + b.loss,
                targets: a.targets + b.targets,
                tokens: a.tokens + b.tokens,
                attention_pairs: a.attention_pairs + b.attention_pairs,
                entropy: a.entropy + b.entropy,
                divergence: a.divergence + b.divergence,
                hidden_error: a.hidden_error + b.hidden_error,
                gradient_norm: a.gradient_norm + b.gradient_norm,
                not_finite: a.not_finite.or(b.not_finite),
                rows: a.rows,
            }
        })?;
        [&mut all.loss, &mut all.divergence, &mut all.hidden_error].into_iter().for_each(|sum| *sum /= n);
        all.rows.divide(n);
        all.gradient_norm /= n as f32;
        Some(all)
    }
}

/// A model in training.
pub struct Learner<T: Real> {
    /// The packed weights that products use. They are always those of `master` with the adapters added.
    pub model: Model<T>,
    master: Arena,
    adapters: Option<Adapters<T>>,
    /// The moments.
    pub optimizer: Optimizer,
    gradients: Arena,
    keep: Keep,
    activations: Activations<T>,
    backward: BackwardBuffers<T>,
    head: HeadBuffers<T>,
    d_hidden: Buffer<f32>,
    matching: Matching,
    scratch: Scratch,
    report: StepReport,
}

impl<T: Real> Learner<T> {
    /// A learner of the given weights, with zero moments. `keep` says which activations are kept for the backward pass;
    /// the others are computed again.
    pub fn new(queue: &Queue, master: Arena, hyperparameters: Hyperparameters, keep: Keep) -> Self {
        Self::of(queue, master, None, hyperparameters, keep)
    }

    /// A learner that trains new adapters. The given weights do not change. `key` is the key of the adapters' random
    /// initial values.
    pub fn with_adapters(
        queue: &Queue,
        master: Arena,
        lora: LoraConfig,
        key: Key,
        hyperparameters: Hyperparameters,
        keep: Keep,
    ) -> Self {
        let adapters = Adapters::new(queue, master.config(), lora, key);
        Self::of(queue, master, Some(adapters), hyperparameters, keep)
    }

    fn of(
        queue: &Queue,
        master: Arena,
        adapters: Option<Adapters<T>>,
        hyperparameters: Hyperparameters,
        keep: Keep,
    ) -> Self {
        let config = master.config().clone();
        let device = queue.device();
        let trained = adapters.as_ref().map_or(&master, Adapters::weights);
        let mut learner = Self {
            model: Model::zeros(queue, &config, Role::Training),
            optimizer: Optimizer::new(device, trained.values().len(), hyperparameters),
            gradients: trained.zeros_like(),
            keep,
            activations: Activations::new(device, &config, 0, keep),
            backward: BackwardBuffers::new(device, &config, 0),
            head: HeadBuffers::new(device, &config),
            d_hidden: Buffer::zeros(device, 0),
            matching: Matching::new(queue),
            scratch: Scratch::new(device),
            report: StepReport::default(),
            adapters,
            master,
        };
        learner.repack(queue);
        learner
    }

    /// The weights that are trained: the model's own or its adapters'.
    pub fn trained(&self) -> &Arena {
        self.adapters.as_ref().map_or(&self.master, Adapters::weights)
    }

    /// The same, for writing. Call [`Learner::repack`] after a change.
    pub fn trained_mut(&mut self) -> &mut Arena {
        self.adapters.as_mut().map_or(&mut self.master, Adapters::weights_mut)
    }

    /// Packs the current weights into the model.
    pub fn repack(&mut self, queue: &Queue) {
        match &mut self.adapters {
            None => self.model.update(queue, &self.master),
            Some(adapters) => adapters.pack(queue, &self.master, &mut self.model, &mut self.scratch),
        }
    }

    /// The model's weights after training, with the adapters merged in.
    pub fn into_weights(mut self, queue: &Queue) -> Arena {
        if let Some(adapters) = &self.adapters {
            adapters.merge_into(queue, &mut self.master, &mut self.scratch);
        }
        self.master
    }

    /// Floating-point operations of the steps that `report` covers.
    pub fn flops(&self, report: &StepReport) -> f64 {
        let adapters = self.adapters.as_ref().map(Adapters::config);
        self.model.config().training_flops(adapters, report.tokens, report.targets, report.attention_pairs)
    }

    /// Log-probabilities of the targets of a batch under the current weights: `[R]`, in the order of `targets`, in
    /// nats. Nothing is trained.
    pub fn logprobs(&mut self, queue: &Queue, batch: &Batch, targets: &Targets, temperature: f32) -> Vec<f32> {
        self.reserve(queue, batch);
        forward(queue, &self.model, batch, &mut self.activations, &mut self.scratch);
        let hidden = self.activations.hidden(self.model.config());
        head::statistics(queue, &self.model, hidden, targets, temperature, &mut self.head).logprob
    }

    /// Adds the gradient of one micro-batch. The weights in `signals` are those of the whole step; nothing is averaged
    /// here.
    ///
    /// # Panics
    /// When a column's length is not the batch's, or when no token has a signal. Stages count such rows and leave them
    /// out.
    pub fn accumulate(&mut self, queue: &Queue, batch: &Batch, signals: &Signals<T>) {
        assert_eq!(signals.cross_entropy.len(), batch.len(), "the columns of signals and the batch");
        let targets = Targets::of(batch, |t| signals.is_target(t));
        assert!(!targets.is_empty(), "a micro-batch without a target");
        self.reserve(queue, batch);
        let width = self.model.config().hidden_size;
        forward(queue, &self.model, batch, &mut self.activations, &mut self.scratch);

        let hidden = self.activations.hidden(self.model.config());
        let by_coefficient = signals.rows.map(|loss| {
            let rows: Vec<usize> = (0..targets.len()).filter(|&r| loss.trained()[targets.tokens[r] as usize]).collect();
            let (coefficients, report) = match loss.known() {
                Some(logprobs) => loss.coefficients(logprobs),
                None => {
                    let statistics =
                        head::statistics(queue, &self.model, hidden, &targets, signals.temperature, &mut self.head);
                    let logprobs: Vec<f32> = rows.iter().map(|&r| statistics.logprob[r]).collect();
                    loss.coefficients(&logprobs)
                }
            };
            assert_eq!(rows.len(), coefficients.len(), "trained tokens of the batch and coefficients");
            let mut by_row = vec![0.0; targets.len()];
            rows.into_iter().zip(coefficients).for_each(|(row, coefficient)| by_row[row] = coefficient);
            (by_row, report)
        });
        let soft_weight: Vec<f32> = match &signals.soft {
            Some(soft) => targets.tokens.iter().map(|&t| soft.weight[t as usize]).collect(),
            None => Vec::new(),
        };
        let top_k = signals.soft.as_ref().and_then(|soft| TopKRows::of(queue, &soft.labels, &targets));
        let soft = signals.soft.as_ref().map(|soft| Soft {
            source: match (&soft.labels, &top_k) {
                (SoftLabels::Teacher { model, activations, divergence }, _) => {
                    SoftSource::Teacher { model, hidden: activations.hidden(model.config()), divergence: *divergence }
                }
                (_, Some(rows)) => rows.source(),
                (_, None) => unreachable!("gathered above"),
            },
            temperature: signals.temperature,
            weight: &soft_weight,
        });
        let cross_entropy = |r: usize| signals.cross_entropy[targets.tokens[r] as usize];
        zero(queue, self.d_hidden.matrix_mut(batch.len(), width));
        let mut gradients = match &mut self.adapters {
            None => Gradients::Weights(self.gradients.weights_mut()),
            Some(adapters) => Gradients::Adapters(adapters, &mut self.gradients),
        };
        let rows = head::backward(
            queue,
            &self.model,
            hidden,
            &targets,
            signals.temperature,
            |r, _, _| by_coefficient.as_ref().map_or(0.0, |(coefficients, _)| coefficients[r]) - cross_entropy(r),
            soft.as_ref(),
            self.d_hidden.matrix_mut(batch.len(), width),
            gradients.head(),
            &mut self.head,
            &mut self.scratch,
        );
        let mut taps = Vec::new();
        if let Some(hidden) = &signals.hidden {
            let master = self.master.weights();
            let without = "hidden states are matched by a projection: see `Arena::with_projection`";
            let Gradients::Weights(d_weights) = &mut gradients else { panic!("{without}") };
            let error = self.matching.gradient(
                queue,
                hidden,
                &targets,
                self.activations.residual(self.model.config(), hidden.layer),
                master.projection.expect(without),
                d_weights.projection.as_mut().expect(without).reborrow(),
                &mut self.scratch,
            );
            self.report.hidden_error += error;
            taps.push(TapGradient { layer: hidden.layer, gradient: self.matching.tap(batch.len(), width) });
        }
        backward(
            queue,
            &self.model,
            batch,
            &mut self.activations,
            self.d_hidden.matrix(batch.len(), width),
            &taps,
            &mut gradients,
            &mut self.backward,
            &mut self.scratch,
        );
        let row_report = by_coefficient.map(|(_, report)| report).unwrap_or_default();
        self.count(batch, &rows, &soft_weight, row_report, cross_entropy);
    }

    fn reserve(&mut self, queue: &Queue, batch: &Batch) {
        self.model.reserve_context(queue, batch.context_len());
        if self.activations.capacity() < batch.len() {
            let (device, config, rows) = (queue.device(), self.model.config(), batch.len());
            // The old memory is freed first, so that the peak is the new size.
            self.activations = Activations::new(device, config, 0, self.keep);
            self.activations = Activations::new(device, config, rows, self.keep);
            self.backward = BackwardBuffers::new(device, config, rows);
            self.d_hidden = Buffer::zeros(device, rows * config.hidden_size);
        }
    }

    fn count(
        &mut self,
        batch: &Batch,
        rows: &RowStatistics,
        soft_weight: &[f32],
        row_report: RowReport,
        cross_entropy: impl Fn(usize) -> f32,
    ) {
        let report = &mut self.report;
        let count = rows.logprob.len();
        report.tokens += batch.len();
        report.attention_pairs += batch.attention_pairs();
        report.targets += count;
        report.entropy += rows.entropy.iter().map(|&h| f64::from(h)).sum::<f64>();
        let nll: f64 = (0..count).map(|r| -f64::from(rows.logprob[r]) * f64::from(cross_entropy(r))).sum();
        let divergence: f64 =
            soft_weight.iter().zip(&rows.divergence).map(|(&w, &d)| f64::from(w) * f64::from(d)).sum();
        report.divergence += divergence;
        report.loss += nll + divergence + row_report.loss;
        report.rows.add(row_report);
    }

    /// Ends the step: clips, updates, repacks, and clears the gradient.
    pub fn update(&mut self, queue: &Queue, learning_rate: f32) -> StepReport {
        let trained = self.adapters.as_mut().map_or(&mut self.master, Adapters::weights_mut);
        let gradient_norm = self.optimizer.step(queue, trained, &self.gradients, learning_rate);
        let not_finite = (!gradient_norm.is_finite()).then(|| {
            let found = self.gradients.first_not_finite(self.gradients.values());
            found.map_or("its norm overflows".into(), |(tensor, at, value)| {
                format!("{tensor} holds {value} at element {at}")
            })
        });
        self.repack(queue);
        zero(queue, self.gradients.values_mut().view_mut());
        let report = std::mem::take(&mut self.report);
        StepReport { gradient_norm, not_finite, loss: report.loss + report.hidden_error, ..report }
    }

    /// The gradient that was accumulated since the last update.
    pub fn gradient(&self) -> &Arena {
        &self.gradients
    }

    /// Bytes of weights, gradients, moments and activations held now.
    pub fn size_bytes(&self) -> usize {
        // Gradient and two moments.
        self.master.values().size_bytes()
            + 3 * self.gradients.values().size_bytes()
            + self.adapters.as_ref().map_or(0, Adapters::size_bytes)
            + self.model.size_bytes()
            + self.activations.size_bytes()
            + self.backward.size_bytes()
            + self.head.size_bytes()
            + self.matching.size_bytes()
            + self.scratch.size_bytes()
    }
}

/// The rows of a top-k column that belong to targets, `[R, k]`.
struct TopKRows {
    k: usize,
    ids: Buffer<u32>,
    logprobs: Buffer<f32>,
}

impl TopKRows {
    fn of<T: Real>(queue: &Queue, labels: &SoftLabels<T>, targets: &Targets) -> Option<TopKRows> {
        let SoftLabels::TopK { k, ids, logprobs } = labels else { return None };
        let rows = || targets.tokens.iter().map(|&t| t as usize * k..(t as usize + 1) * k);
        let ids: Vec<u32> = rows().flat_map(|row| &ids[row]).copied().collect();
        let logprobs: Vec<f32> = rows().flat_map(|row| &logprobs[row]).copied().collect();
        let device = queue.device();
        let (ids, logprobs) = (Buffer::from_host(device, &ids), Buffer::from_host(device, &logprobs));
        Some(TopKRows { k: *k, ids, logprobs })
    }

    fn source<T: Real>(&self) -> SoftSource<'_, T> {
        let rows = self.ids.len() / self.k;
        SoftSource::TopK { ids: self.ids.matrix(rows, self.k), logprobs: self.logprobs.matrix(rows, self.k) }
    }
}
