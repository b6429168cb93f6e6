//! The programs' memory. husk allocates little, often and from one thread, and exits soon; musl's own allocator is made for long-lived
//! programs. dlmalloc's global instance takes a mutex of the C library's for each piece, which costs as much as the piece itself.

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// To be the `#[global_allocator]` of a program.
pub struct Allocator {
    busy: AtomicBool,
    heap: UnsafeCell<Dlmalloc>,
}

impl Allocator {
    #[allow(clippy::new_without_default)] // const
    pub const fn new() -> Allocator {
        Allocator {
            busy: AtomicBool::new(false),
            heap: UnsafeCell::new(Dlmalloc::new()),
        }
    }

    /// With more than one thread the others spin; husk has one. A clone is made by that one, so its child finds the heap free.
    #[inline]
    fn with<T>(&self, f: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        while self.busy.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: whoever has set `busy` is alone with the heap until it is unset, and `f` does not allocate.
        let result = f(unsafe { &mut *self.heap.get() });
        self.busy.store(false, Ordering::Release);
        result
    }
}

// SAFETY: the heap is only reached by way of `with`, by one thread at a time.
unsafe impl Sync for Allocator {}

// SAFETY: dlmalloc keeps the promises of GlobalAlloc, as its own global instance does.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: of a size and an alignment that are a layout's.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: likewise.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, with this layout.
        self.with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: likewise.
        self.with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) })
    }
}
