//! [`Scratch`]: working memory that a caller keeps between operations, so that no operation allocates in a loop.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::dtype::Element;
use crate::view::area;

/// Working memory that grows and never shrinks. Its content has no meaning between two operations.
pub struct Scratch {
    memory: Buffer<f32>,
}

impl Scratch {
    /// Empty scratch. Operations let it grow to the size that they need.
    pub fn new(device: Device) -> Self {
        Self { memory: Buffer::zeros(device, 0) }
    }

    /// Size in memory, in bytes: the largest use so far.
    pub fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// `len` elements of any type, 64-byte aligned, with arbitrary values.
    pub(crate) fn elements<T: Element>(&mut self, len: usize) -> &mut [T] {
        let floats = area(len, size_of::<T>()).div_ceil(size_of::<f32>());
        if self.memory.len() < floats {
            // Free the old memory first, so that the peak is the new size and not the sum of both sizes.
            let device = self.memory.device();
            self.memory = Buffer::zeros(device, 0);
            self.memory = Buffer::zeros(device, floats);
        }
        let memory = self.memory.host_mut();
        // SAFETY: the memory holds at least `len` elements, is aligned for any of them, is initialised, and every bit
        // pattern is a valid f32, bf16 or u32, the only types `Element` is implemented for.
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<T>(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_keeps_its_size() {
        let mut scratch = Scratch::new(Device::Cpu);
        scratch.elements::<f32>(100).fill(1.0);
        assert_eq!(scratch.elements::<u32>(7).len(), 7);
        assert_eq!(scratch.size_bytes(), 400);
        assert_eq!(scratch.elements::<f32>(101).as_ptr() as usize % 64, 0);
    }
}
