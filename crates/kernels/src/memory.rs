//! [`Memory`]: zeroed, 64-byte aligned bytes on the host, which [`crate::Buffer`] types.
//!
//! Small ones come from the heap; large ones are mappings of their own that ask for huge pages. With pages of 4 KB a
//! training step goes through more memory than the processor's table of translations holds, and the hardware's
//! look-ahead stops at every page's end.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use memmap2::MmapMut;

/// One cache line, and one 512-bit vector.
const ALIGNMENT_BYTES: usize = 64;
/// From here on memory is a mapping of its own: the size of one huge page.
const MAPPED_FROM_BYTES: usize = 2 << 20;

/// Owned bytes on the host; see the module.
pub(crate) struct Memory {
    start: NonNull<u8>,
    place: Place,
}

enum Place {
    Heap(Layout),
    /// Held for its release alone.
    Mapped(#[allow(dead_code)] MmapMut),
}

// SAFETY: it owns its bytes as a `Vec` does.
unsafe impl Send for Memory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zeros. Running out of memory ends the process, as everywhere in Rust.
    ///
    /// # Panics
    /// When the bytes exceed the address space: sizes are validated before they reach an allocation.
    pub fn zeros(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, ALIGNMENT_BYTES)
            .unwrap_or_else(|_| panic!("{bytes} bytes exceed the address space"));
        if bytes >= MAPPED_FROM_BYTES {
            let Ok(mut pages) = MmapMut::map_anon(bytes) else { handle_alloc_error(layout) };
            // Where the system has no huge pages, or keeps them from us, small ones do.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let start = NonNull::new(pages.as_mut_ptr()).expect("a mapping has an address");
            return Memory { start, place: Place::Mapped(pages) };
        }
        if bytes == 0 {
            let aligned = std::ptr::without_provenance_mut(ALIGNMENT_BYTES);
            let start = NonNull::new(aligned).expect("the alignment is not zero");
            return Memory { start, place: Place::Heap(layout) };
        }
        // SAFETY: the layout has a non-zero size.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Memory { start, place: Place::Heap(layout) }
    }

    /// The first byte, at a multiple of 64.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Place::Heap(layout) = self.place
            && layout.size() != 0
        {
            // SAFETY: allocated in `zeros` with this layout.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_aligned_and_zero() {
        for bytes in [0, 1, 63, 4096, MAPPED_FROM_BYTES - 1, MAPPED_FROM_BYTES, 3 * MAPPED_FROM_BYTES + 5] {
            let memory = Memory::zeros(bytes);
            assert_eq!(memory.start().as_ptr() as usize % ALIGNMENT_BYTES, 0, "{bytes} bytes");
            // SAFETY: the memory holds that many bytes.
            let content = unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), bytes) };
            assert!(content.iter().all(|&byte| byte == 0), "{bytes} bytes");
        }
    }
}
