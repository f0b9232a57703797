//! An arena is one buffer that holds every tensor of a table. Master weights, gradients and adapters are arenas.
//!
//! An [`Arena`] is f32 memory in the order of [`Config::tensors`]. [`Weights`] is an arena cut into disjoint views, one
//! for each group of tensors that products read as one matrix.
//!
//! Read next: `model.rs`, the packed copies of the weights that products read.

use std::ops::Range;
use std::path::Path;

use kernels::rng::Key;
use kernels::{Buffer, Device, View, ViewMut};

use crate::checkpoint::{TensorSource, check, first_not_finite};
use crate::config::Config;
use crate::error::FormatError;
use crate::layout::Layout;

use crate::table::{GroupId, Table, TensorRole, TensorSpec};

/// One f32 buffer that holds every tensor of a table.
#[derive(Clone)]
pub struct Arena {
    config: Config,
    table: Table,
    values: Buffer<f32>,
}

impl Arena {
    /// Zeros for every tensor of a model with this configuration.
    pub fn zeros(device: Device, config: &Config) -> Arena {
        Arena::laid_out(device, config, Layout::of(config).table)
    }

    /// Zeros for every tensor of another table, for weights that are trained beside the model's own (adapters).
    pub(crate) fn laid_out(device: Device, config: &Config, table: Table) -> Arena {
        Arena { config: config.clone(), values: Buffer::zeros(device, table.len()), table }
    }

    /// Zeros in the same layout, which includes a projection if there is one.
    pub fn zeros_like(&self) -> Arena {
        Arena::laid_out(self.values.device(), &self.config, self.table.clone())
    }

    /// Appends a random projection from the residual stream to `width` dimensions. It is trained, clipped and
    /// checkpointed like all weights, but it is no part of the model.
    ///
    /// # Panics
    /// When there is a projection already.
    /// When there is one already.
    pub fn with_projection(self, width: usize, key: Key) -> Arena {
        let Arena { config, mut table, values } = self;
        assert!(table.find(TensorRole::Projection).is_none(), "one projection at a time");
        let hidden = config.hidden_size;
        table.group(None, [TensorSpec::new(TensorRole::Projection, "projection.weight", "", &[width, hidden])]);
        let (std, mut draws) = (1.0 / (hidden as f64).sqrt(), key.stream());
        let projection = (0..width * hidden).map(|_| (std * draws.normal()) as f32);
        let longer: Vec<f32> = values.to_host().into_iter().chain(projection).collect();
        Arena { config, table, values: Buffer::from_host(values.device(), &longer) }
    }

    /// The model's own weights, without a projection. They are what is exported.
    pub fn without_projection(self) -> Arena {
        if self.table.find(TensorRole::Projection).is_none() {
            return self;
        }
        let Arena { config, table, values } = self;
        let table = table.without_last();
        let own = values.view().col_range(0..table.len()).to_host();
        Arena { config, table, values: Buffer::from_host(values.device(), &own) }
    }

    /// Random initial weights: norms are one, biases are zero, matrices are normal with standard deviation
    /// `initializer_range`. For the two projections that write to the residual stream, the standard deviation is
    /// multiplied by `1 / sqrt(2 · layers)`.
    ///
    /// # Source
    /// Radford et al. 2019, GPT-2 (section 2.3: residual layers scaled by `1 / √N`, where N is their number).
    pub fn random(device: Device, config: &Config, seed: u64) -> Arena {
        let mut arena = Arena::zeros(device, config);
        let narrow = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        for index in 0..arena.specs().len() {
            let spec = &arena.specs()[index];
            let normal = |scale: f64| {
                let std = config.initializer_range * scale;
                let mut draws = Key::new(seed).word("initial weights").word(&spec.name).stream();
                (0..spec.len()).map(|_| (std * draws.normal()) as f32).collect()
            };
            let values = match spec.role {
                TensorRole::Norm => vec![1.0; spec.len()],
                TensorRole::Bias => vec![0.0; spec.len()],
                TensorRole::ResidualMatrix => normal(narrow),
                TensorRole::Embedding | TensorRole::Matrix | TensorRole::Head | TensorRole::Projection => normal(1.0),
            };
            arena.tensor_mut(index).copy_from_host(&values);
        }
        arena
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// Those of [`check`] and of [`TensorSource::read_f32`].
    pub fn load(device: Device, config: &Config, source: &dyn TensorSource) -> Result<Arena, FormatError> {
        check(config, source)?;
        let mut arena = Arena::zeros(device, config);
        let mut values = Vec::new();
        for index in 0..arena.specs().len() {
            values.resize(arena.specs()[index].len(), 0.0);
            source.read_f32(&arena.specs()[index].name, &mut values)?;
            arena.tensor_mut(index).copy_from_host(&values);
        }
        Ok(arena)
    }

    /// The configuration of the model to which it belongs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every tensor, in the order of memory.
    pub fn specs(&self) -> &[TensorSpec] {
        self.table.specs()
    }

    /// Tensor `index` of the table: `[rows, cols]`, or `[1, n]` for a vector.
    pub fn tensor(&self, index: usize) -> View<'_, f32> {
        let (range, (rows, cols)) = self.place(index);
        self.values.view().col_range(range).reshape(rows, cols)
    }

    /// Tensor `index` of the table, for writing.
    pub fn tensor_mut(&mut self, index: usize) -> ViewMut<'_, f32> {
        let (range, (rows, cols)) = self.place(index);
        self.values.view_mut().col_range(range).reshape(rows, cols)
    }

    /// Where tensor `index` lies in [`Arena::values`], and its shape.
    fn place(&self, index: usize) -> (Range<usize>, (usize, usize)) {
        let (offset, spec) = (self.offset(index), &self.specs()[index]);
        (offset..offset + spec.len(), spec.rows_and_cols())
    }

    /// Tensor `index`, multiplied by `scale`.
    pub(crate) fn scaled(&self, index: usize, scale: f32) -> Vec<f32> {
        self.tensor(index).to_host().iter().map(|value| scale * value).collect()
    }

    /// Where tensor `index` begins in [`Arena::values`].
    pub fn offset(&self, index: usize) -> usize {
        self.table.offset(index)
    }

    /// Every element, in the table's order.
    pub fn values(&self) -> &Buffer<f32> {
        &self.values
    }

    /// Every element, in the table's order, for writing.
    pub fn values_mut(&mut self) -> &mut Buffer<f32> {
        &mut self.values
    }

    /// The first element that is NaN or infinite: the name of its tensor, its index in it, and its value.
    ///
    /// * `values`: weights, a gradient or moments, in the arena's layout.
    pub fn first_not_finite(&self, values: &Buffer<f32>) -> Option<(&str, usize, f32)> {
        (0..self.specs().len()).find_map(|tensor| {
            let (range, _) = self.place(tensor);
            let (index, value) = first_not_finite(&values.view().col_range(range).to_host())?;
            Some((self.specs()[tensor].name.as_str(), index, value))
        })
    }

    /// The arena as views.
    pub fn weights(&self) -> Weights<View<'_, f32>> {
        Weights::new(&self.table, self.table.split(self.values.view()))
    }

    /// The arena as disjoint views, for writing.
    pub fn weights_mut(&mut self) -> Weights<ViewMut<'_, f32>> {
        Weights::new(&self.table, self.table.split(self.values.view_mut()))
    }
}

/// An arena cut into views: one for each group of tensors that products read as one matrix. Vectors are `[1, n]`.
pub struct Weights<V> {
    groups: Vec<V>,
    head: Option<GroupId>,
    /// The projection to a teacher's residual stream, `[C of the teacher, C]`, if there is one.
    pub projection: Option<V>,
}

impl<V> Weights<V> {
    fn new(table: &Table, mut groups: Vec<V>) -> Self {
        let head = table.find(TensorRole::Head).or_else(|| table.find(TensorRole::Embedding));
        // The projection comes after the model's own tensors.
        let projection = table.find(TensorRole::Projection).map(|id| groups.remove(id.0));
        Self { groups, head, projection }
    }

    /// A group of the model's table.
    pub(crate) fn get(&self, id: GroupId) -> &V {
        &self.groups[id.0]
    }

    /// A group of the model's table, for writing.
    pub(crate) fn get_mut(&mut self, id: GroupId) -> &mut V {
        &mut self.groups[id.0]
    }

    /// The head, or the embedding where the two are tied.
    pub(crate) fn head_mut(&mut self) -> Option<&mut V> {
        self.head.map(|id| &mut self.groups[id.0])
    }
}

/// Master weights can be saved like any other source of tensors, for example by
/// [`crate::checkpoint::huggingface::save`].
impl TensorSource for Arena {
    fn path(&self) -> &Path {
        Path::new("weights in memory")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.specs().iter().map(|spec| spec.name.clone()).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.specs().iter().find(|spec| spec.name == name).map(|spec| spec.shape.clone())
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        let path = || self.path().to_path_buf();
        let Some(index) = self.specs().iter().position(|spec| spec.name == name) else {
            return Err(FormatError::MissingTensor { path: path(), name: name.into(), expected: vec![] });
        };
        let values = self.tensor(index);
        if self.specs()[index].len() != out.len() {
            let (found, expected) = (self.specs()[index].shape.clone(), vec![out.len()]);
            return Err(FormatError::Shape { path: path(), name: name.into(), found, expected });
        }
        values.copy_to_host(out);
        match first_not_finite(out) {
            None => Ok(()),
            Some((index, value)) => Err(FormatError::NotFinite { path: path(), name: name.into(), index, value }),
        }
    }
}
