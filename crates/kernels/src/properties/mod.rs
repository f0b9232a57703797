//! Tests every public operation under random shapes, strides, indices and segments.
//!
//! A property builds a [`Case`]: operands, a call, and the expected value of each result in f64 arithmetic. Every
//! operand lies inside a larger allocation. The other elements of the allocation are guards: NaN, or the largest index.
//!
//! ```text
//!     # # # # # # # #      #  a guard, which must be unchanged afterwards
//!     # # x x x x x #      x  the operand, `rows × cols` with a stride of 8
//!     # # x x x x x #
//! ```
//!
//! So a read outside an operand spoils the result, and a write outside it is found. All margins may be 0. Then the
//! operand fills an allocation of its own, and AddressSanitizer or valgrind detect accesses past it
//! (`bench/memory.sh`).
//!
//! After that, [`check`] gives one operand another shape, and then makes one index too large. In both cases the
//! operation must panic before it writes anything.
//!
//! The cases of a run are always the same. `PROPTEST_CASES` sets their number; `PROPTEST_RNG_SEED` selects others.

mod attention;
mod head;
mod products;
mod rows;

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{RngSeed, TestError, TestRunner};

use crate::testing::{assert_close, queues, random};
use crate::{Element, Queue, Real, View, ViewMut, bf16};

/// The source of a case's random choices. Small numbers give small cases, so proptest shrinks a failure to a small one.
pub(crate) struct Draw {
    choices: Vec<u16>,
    next: Cell<usize>,
    seed: u64,
}

impl Draw {
    pub fn below(&self, end: usize) -> usize {
        let at = self.next.replace(self.next.get() + 1);
        usize::from(self.choices.get(at).copied().unwrap_or(0)) % end
    }

    pub fn within(&self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub fn chance(&self) -> bool {
        self.below(2) == 1
    }

    /// Numbers in (−1, 1), different at each call.
    pub fn numbers<T: Real>(&self, len: usize) -> Vec<T> {
        random(self.seed ^ self.next.replace(self.next.get() + 1) as u64, len)
    }

    pub fn indices(&self, len: usize, end: usize) -> Vec<u32> {
        self.numbers::<f32>(len).iter().map(|x| ((x.abs() * 1e6) as usize % end) as u32).collect()
    }
}

/// A matrix with guards around it.
#[derive(Clone)]
pub(crate) struct Guarded<T> {
    memory: Vec<T>,
    shape: (usize, usize),
    stride: usize,
    above: usize,
    left: usize,
}

impl<T: Kind> Guarded<T> {
    fn new(draw: &Draw, rows: usize, cols: usize, values: &[T]) -> Self {
        let [left, right, above, below] = [(); 4].map(|()| [0, 0, 0, 1, 2, 3, 7, 16][draw.below(8)]);
        let stride = left + cols + right;
        let mut memory = vec![T::GUARD; (above + rows + below) * stride];
        let first = above * stride + left;
        values.chunks(cols.max(1)).enumerate().for_each(|(i, row)| {
            memory[first + i * stride..][..cols].copy_from_slice(row);
        });
        Self { memory, shape: (rows, cols), stride, above, left }
    }

    fn ranges(&self) -> [std::ops::Range<usize>; 2] {
        [self.above..self.above + self.shape.0, self.left..self.left + self.shape.1]
    }

    fn all_rows(&self) -> usize {
        self.memory.len().checked_div(self.stride).unwrap_or(self.above + self.shape.0)
    }

    fn view(&self) -> View<'_, T> {
        let [rows, cols] = self.ranges();
        View::of(&self.memory, self.all_rows(), self.stride).row_range(rows).col_range(cols)
    }

    fn view_mut(&mut self) -> ViewMut<'_, T> {
        let ([rows, cols], all_rows) = (self.ranges(), self.all_rows());
        ViewMut::of(&mut self.memory, all_rows, self.stride).row_range(rows).col_range(cols)
    }

    /// The bits outside the matrix, or all bits.
    fn bits(&self, guards_only: bool) -> Vec<u32> {
        let [rows, cols] = self.ranges();
        let inside = |at: usize| rows.contains(&(at / self.stride)) && cols.contains(&(at % self.stride));
        let memory = self.memory.iter().enumerate().filter(|(at, _)| !guards_only || !inside(*at));
        memory.map(|(_, value)| value.to_word()).collect()
    }
}

/// An element type of operands.
pub(crate) trait Kind: Element {
    const GUARD: Self;
    fn to_word(self) -> u32;
    fn operand(matrix: Guarded<Self>) -> Matrix;
    fn of(matrix: &Matrix) -> &Guarded<Self>;
    fn of_mut(matrix: &mut Matrix) -> &mut Guarded<Self>;
}

#[derive(Clone)]
pub(crate) enum Matrix {
    F32(Guarded<f32>),
    Bf16(Guarded<bf16>),
    U32(Guarded<u32>),
}

macro_rules! kind {
    ($type:ty, $variant:ident, $guard:expr, $word:expr) => {
        impl Kind for $type {
            const GUARD: Self = $guard;
            fn to_word(self) -> u32 {
                $word(self)
            }
            fn operand(matrix: Guarded<Self>) -> Matrix {
                Matrix::$variant(matrix)
            }
            fn of(matrix: &Matrix) -> &Guarded<Self> {
                let Matrix::$variant(matrix) = matrix else { panic!("an operand of another type") };
                matrix
            }
            fn of_mut(matrix: &mut Matrix) -> &mut Guarded<Self> {
                let Matrix::$variant(matrix) = matrix else { panic!("an operand of another type") };
                matrix
            }
        }
    };
}
kind!(f32, F32, f32::NAN, f32::to_bits);
kind!(bf16, Bf16, bf16::NAN, |x: bf16| u32::from(x.to_bits()));
kind!(u32, U32, u32::MAX, |x| x);

/// An operand of a case.
#[derive(Clone)]
pub(crate) struct Operand {
    matrix: Matrix,
    written: bool,
    /// Whether no other operand shares the number of rows, or of columns; then another number is valid too.
    free: [bool; 2],
}

impl Operand {
    pub fn view<T: Kind>(&self) -> View<'_, T> {
        T::of(&self.matrix).view()
    }

    pub fn view_mut<T: Kind>(&mut self) -> ViewMut<'_, T> {
        T::of_mut(&mut self.matrix).view_mut()
    }

    fn bits(&self, guards_only: bool) -> Vec<u32> {
        match &self.matrix {
            Matrix::F32(matrix) => matrix.bits(guards_only),
            Matrix::Bf16(matrix) => matrix.bits(guards_only),
            Matrix::U32(matrix) => matrix.bits(guards_only),
        }
    }

    fn shape(&self) -> (usize, usize) {
        match &self.matrix {
            Matrix::F32(matrix) => matrix.shape,
            Matrix::Bf16(matrix) => matrix.shape,
            Matrix::U32(matrix) => matrix.shape,
        }
    }

    /// An operand of zeros with another shape.
    fn reshaped(&self, draw: &Draw, rows: usize, cols: usize) -> Operand {
        fn zeros<T: Kind>(draw: &Draw, rows: usize, cols: usize) -> Matrix {
            T::operand(Guarded::new(draw, rows, cols, &vec![T::default(); rows * cols]))
        }
        let matrix = match &self.matrix {
            Matrix::F32(_) => zeros::<f32>(draw, rows, cols),
            Matrix::Bf16(_) => zeros::<bf16>(draw, rows, cols),
            Matrix::U32(_) => zeros::<u32>(draw, rows, cols),
        };
        Operand { matrix, ..*self }
    }
}

/// The expected values of an operand in f64, row by row. NaN stands for an element that must not be written.
struct Wanted {
    operand: usize,
    values: Vec<f64>,
    tolerance: f64,
}

type Run = Box<dyn Fn(&Queue, &mut [Operand])>;

/// A call with its operands, and the expected results.
pub(crate) struct Case {
    operands: Vec<Operand>,
    run: Run,
    wanted: Vec<Wanted>,
}

impl Case {
    pub fn new(run: impl Fn(&Queue, &mut [Operand]) + 'static) -> Case {
        Case { operands: Vec::new(), run: Box::new(run), wanted: Vec::new() }
    }

    /// Adds an operand that is only read.
    pub fn reads<T: Kind>(mut self, draw: &Draw, (rows, cols): (usize, usize), values: &[T]) -> Case {
        let matrix = T::operand(Guarded::new(draw, rows, cols, values));
        self.operands.push(Operand { matrix, written: false, free: [false; 2] });
        self
    }

    /// Adds an operand that is overwritten: it holds guards before the call, and `wanted` after it.
    pub fn writes<T: Kind>(self, draw: &Draw, shape: (usize, usize), wanted: Vec<f64>, tolerance: f64) -> Case {
        self.changes(draw, shape, &vec![T::GUARD; shape.0 * shape.1], wanted, tolerance)
    }

    /// Adds an operand that holds `values` before the call, and `wanted` after it.
    pub fn changes<T: Kind>(
        mut self,
        draw: &Draw,
        (rows, cols): (usize, usize),
        values: &[T],
        wanted: Vec<f64>,
        tolerance: f64,
    ) -> Case {
        assert_eq!(wanted.len(), rows * cols, "expectations of operand {}", self.operands.len());
        self.wanted.push(Wanted { operand: self.operands.len(), values: wanted, tolerance });
        let matrix = T::operand(Guarded::new(draw, rows, cols, values));
        self.operands.push(Operand { matrix, written: true, free: [false; 2] });
        self
    }

    /// Says that the last operand may have any number of rows, or of columns.
    pub fn free(mut self, rows: bool, cols: bool) -> Case {
        self.operands.last_mut().expect("an operand").free = [rows, cols];
        self
    }

    fn gives_what_is_wanted(&self) {
        for pair in QUEUES.chunks(2) {
            let mut results = pair.iter().map(|queue| {
                let mut operands = self.operands.clone();
                (self.run)(queue, &mut operands);
                for (i, (after, before)) in operands.iter().zip(&self.operands).enumerate() {
                    let guards_only = before.written;
                    let same = after.bits(guards_only) == before.bits(guards_only);
                    assert!(same, "operand {i} was written where it must not be, on {}", queue.isa().name());
                }
                self.wanted.iter().for_each(|wanted| self.compare(wanted, &operands[wanted.operand], queue));
                operands.iter().map(|operand| operand.bits(false)).collect::<Vec<_>>()
            });
            assert!(results.next() == results.next(), "bits depend on threads, on {}", pair[0].isa().name());
        }
    }

    fn compare(&self, wanted: &Wanted, operand: &Operand, queue: &Queue) {
        let place = format!("operand {} on {}", wanted.operand, queue.isa().name());
        let before = &self.operands[wanted.operand];
        let (after, before): (Vec<f32>, Vec<f32>) = match &operand.matrix {
            Matrix::F32(matrix) => (matrix.view().to_host(), before.view::<f32>().to_host()),
            Matrix::Bf16(matrix) => (widened(&matrix.view().to_host()), widened(&before.view().to_host())),
            Matrix::U32(matrix) => {
                let found: Vec<f64> = matrix.view().to_host().iter().map(|&x| f64::from(x)).collect();
                assert_eq!(found, wanted.values, "{place}");
                return;
            }
        };
        let kept = |i: usize| wanted.values[i].is_nan();
        let (mut found, mut values) = (Vec::new(), Vec::new());
        for i in 0..after.len() {
            if kept(i) {
                assert!(after[i].to_bits() == before[i].to_bits(), "{place}: element {i} was written");
            } else {
                found.push(after[i]);
                values.push(wanted.values[i]);
            }
        }
        assert_close(&place, &found, &values, wanted.tolerance);
    }

    /// Gives one operand another shape.
    fn refuses_another_shape(&self, draw: &Draw) {
        let at = draw.below(self.operands.len());
        let (operand, dimension) = (&self.operands[at], draw.below(2));
        let mut shape = [operand.shape().0, operand.shape().1];
        let old = shape[dimension];
        shape[dimension] = [0, old + 1, old.saturating_sub(1), 2 * old + 1][draw.below(4)];
        if operand.free[dimension] || shape[dimension] == old {
            return;
        }
        let what = format!("operand {at} of {}×{} instead of {:?}", shape[0], shape[1], operand.shape());
        self.refuses(&what, at, operand.reshaped(draw, shape[0], shape[1]));
    }

    /// Makes one of the indices too large.
    fn refuses_an_index_outside(&self, draw: &Draw) {
        for (at, operand) in self.operands.iter().enumerate().filter(|(_, operand)| !operand.written) {
            let (rows, cols) = operand.shape();
            if let Matrix::U32(_) = &operand.matrix
                && rows * cols > 0
            {
                let mut indices = operand.view::<u32>().to_host();
                indices[draw.below(rows * cols)] = u32::MAX - draw.below(9) as u32;
                let mut changed = operand.clone();
                changed.view_mut().copy_from_host(&indices);
                self.refuses(&format!("operand {at} with {indices:?}"), at, changed);
            }
        }
    }

    /// Checks that the call panics, and writes nothing, with `operand` instead of operand `at`.
    fn refuses(&self, what: &str, at: usize, operand: Operand) {
        let mut operands = self.operands.clone();
        operands[at] = operand;
        let before: Vec<Vec<u32>> = operands.iter().map(|operand| operand.bits(false)).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(&QUEUES[0], &mut operands)));
        assert!(outcome.is_err(), "{what} was accepted");
        let after: Vec<Vec<u32>> = operands.iter().map(|operand| operand.bits(false)).collect();
        assert!(before == after, "written before {what} was refused");
    }
}

fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.to_f32()).collect()
}

static QUEUES: LazyLock<Vec<Queue>> = LazyLock::new(queues);

/// Tests a property in many cases.
pub(crate) fn check(build: impl Fn(&Draw) -> Case) {
    explore(1, |draw| {
        let case = build(draw);
        case.gives_what_is_wanted();
        case.refuses_another_shape(draw);
        case.refuses_an_index_outside(draw);
    });
}

/// Runs `test` for many choices, and shows the smallest choices that fail. Cheap tests run `times` as often.
pub(crate) fn explore(times: u32, test: impl Fn(&Draw)) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 24;
    }
    config.cases *= times;
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(12);
    }
    let choices = (any::<u64>(), proptest::collection::vec(any::<u16>(), 100));
    let outcome = TestRunner::new(config).run(&choices, |(seed, choices)| {
        test(&Draw { choices, next: Cell::new(0), seed });
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (seed, mut choices))) => {
            choices.truncate(choices.iter().rposition(|&choice| choice != 0).map_or(0, |last| last + 1));
            panic!("{reason}; the smallest case that fails: seed {seed}, choices {choices:?}");
        }
        Err(failure) => panic!("{failure}"),
    }
}
