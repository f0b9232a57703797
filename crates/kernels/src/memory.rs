//! [`Memory`]: bytes on the host, zeroed and 64-byte aligned. [`crate::Buffer`] gives them a type.
//!
//! Small memory comes from the heap. Memory of 2 MB or more is a mapping of its own, and the operating system is asked
//! to use huge pages for it. With pages of 4 KB, a training step would touch more pages than the processor's TLB holds,
//! and the hardware prefetcher would stop at the end of every page.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::device::Device;

/// Size of one cache line, and of one 512-bit vector.
const ALIGNMENT_BYTES: usize = 64;
/// Memory of this size or more is a mapping of its own. This is the size of one huge page.
const MAPPED_FROM_BYTES: usize = 2 << 20;

/// How much a [`Region`] maps at a time. Only pages that are written take physical memory.
const REGION_BYTES: usize = 16 << 20;

/// Memory for buffers that are used together, such as the packed weights of a model.
///
/// The buffers lie side by side in large mappings, so that small ones share a huge page. A mapping is freed with the
/// last buffer in it.
pub struct Region {
    device: Device,
    mapping: Arc<Memory>,
    /// The bytes of the mapping that are not used yet.
    free: Range<usize>,
}

impl Region {
    /// An empty region. It maps memory when the first buffer is made.
    pub fn new(device: Device) -> Region {
        Region { device, mapping: Arc::new(Memory::zeros(0)), free: 0..0 }
    }

    /// The device that holds the memory.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// Owned bytes on the host; see the module's documentation.
pub(crate) struct Memory {
    start: NonNull<u8>,
    place: Place,
}

enum Place {
    Heap(Layout),
    /// Kept only so that it is unmapped in the end.
    Mapped(#[allow(dead_code)] MmapMut),
    /// A part of a region's mapping. The mapping lives as long as one of its parts.
    Part(#[allow(dead_code)] Arc<Memory>),
}

// SAFETY: it owns its bytes as a `Vec` does.
unsafe impl Send for Memory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zeros. If the system has no more memory, the process ends, as everywhere in Rust.
    ///
    /// # Panics
    /// When the bytes exceed the address space; callers check sizes before they allocate.
    pub fn zeros(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, ALIGNMENT_BYTES)
            .unwrap_or_else(|_| panic!("{bytes} bytes exceed the address space"));
        if bytes >= MAPPED_FROM_BYTES {
            let Ok(mut pages) = MmapMut::map_anon(bytes) else { handle_alloc_error(layout) };
            // If the system has no huge pages, or gives none, small pages work too.
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

    /// `bytes` zeros in the memory of a region.
    ///
    /// # Panics
    /// As [`Memory::zeros`].
    pub fn within(region: &mut Region, bytes: usize) -> Memory {
        let taken = bytes.checked_next_multiple_of(ALIGNMENT_BYTES);
        let taken = taken.unwrap_or_else(|| panic!("{bytes} bytes exceed the address space"));
        if taken > region.free.len() {
            let size = taken.max(REGION_BYTES);
            (region.mapping, region.free) = (Arc::new(Memory::zeros(size)), 0..size);
        }
        // SAFETY: `free` lies inside the mapping, and is at least as long as the part that is taken.
        let start = unsafe { region.mapping.start.add(region.free.start) };
        region.free.start += taken;
        Memory { start, place: Place::Part(region.mapping.clone()) }
    }

    /// The first byte; its address is a multiple of 64.
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

    #[test]
    fn parts_of_a_region_are_aligned_zero_and_disjoint() {
        let sizes = [0, 1, 64, 65, REGION_BYTES - 192, REGION_BYTES + 1, 4096];
        let mut region = Region::new(Device::Cpu);
        let parts = sizes.map(|bytes| (Memory::within(&mut region, bytes), bytes));
        drop(region);
        for (number, (part, bytes)) in (1..).zip(&parts) {
            assert_eq!(part.start().as_ptr() as usize % ALIGNMENT_BYTES, 0, "{bytes} bytes");
            // SAFETY: the part holds that many bytes, and no other part overlaps it.
            let content = unsafe { std::slice::from_raw_parts_mut(part.start().as_ptr(), *bytes) };
            assert!(content.iter().all(|&byte| byte == 0), "{bytes} bytes");
            content.fill(number);
        }
    }
}
