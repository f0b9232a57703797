//! The element types of buffers, and the two of them in which arithmetic is done.

pub use half::bf16;

/// The element types that a buffer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32, rounded to nearest, ties to even.
    Bf16,
    /// Token and row indices.
    U32,
}

impl DType {
    /// The name on the command line and in files: `f32`, `bf16`, `u32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
        }
    }
}

/// A type that a [`crate::Buffer`] can hold. All-zero bits are a valid value, and there is no padding.
pub trait Element: Copy + Default + Send + Sync + 'static + sealed::Sealed {
    /// This type's tag.
    const DTYPE: DType;
}

/// A type in which products and activations are computed: `f32` or [`bf16`]. Sums are always f32.
pub trait Real: Element + PartialEq {
    /// The same value as an f32.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

impl Real for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u32 {}
}
