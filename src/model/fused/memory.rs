//! Buffers aligned to cache lines, so that no vector crosses two.

#![expect(
    unsafe_code,
    reason = "a line and its values are the same bytes, and threads write to different positions of one buffer"
)]

use std::{io, marker::PhantomData};

/// 64 bytes on a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A number type in which all bit patterns are valid.
pub(super) trait Number: Copy + Default + Send + Sync {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for f32 {}

/// A growable vector aligned to a cache line.
#[derive(Debug, Clone)]
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    length: usize,
    kind: PhantomData<T>,
}

impl<T: Number> Aligned<T> {
    pub(super) const fn new() -> Self {
        Aligned {
            lines: Vec::new(),
            length: 0,
            kind: PhantomData,
        }
    }

    pub(super) fn zeros(length: usize) -> Self {
        let mut made = Aligned::new();
        made.resize(length);
        made
    }

    /// Resizes. New values are zero and the others unspecified; memory that is not needed is kept.
    pub(super) fn resize(&mut self, length: usize) {
        let lines = (length * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.length = length;
    }

    /// The same for large sizes; the caller can recover from the error by halving its batch.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::OutOfMemory`].
    pub(super) fn try_resize(&mut self, length: usize) -> io::Result<()> {
        let lines = (length * size_of::<T>()).div_ceil(size_of::<Line>());
        let more = lines.saturating_sub(self.lines.len());
        self.lines
            .try_reserve_exact(more)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        self.resize(length);
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the lines hold at least this many numbers, aligned, of a type in which all bit
        // patterns are valid.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// The channels of a pixel outside the border: zeros in every number format.
pub(super) static BORDER: Border = Border([0; 1_024]);

/// Aligned as the other sources of the kernels, which read f32 from it too.
#[repr(C, align(64))]
pub(super) struct Border([u16; 1_024]);

impl Border {
    pub(super) fn as_ptr(&self) -> *const u16 {
        self.0.as_ptr()
    }
}

/// A buffer that several threads write to, each to its own positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: a pointer into a buffer that is borrowed exclusively for the lifetime; writers promise to
// use separate positions.
unsafe impl<T: Number> Send for Shared<'_, T> {}
// SAFETY: likewise.
unsafe impl<T: Number> Sync for Shared<'_, T> {}

impl<'a, T: Number> Shared<'a, T> {
    pub(super) fn new(buffer: &'a mut [T]) -> Self {
        Shared {
            start: buffer.as_mut_ptr(),
            length: buffer.len(),
            buffer: PhantomData,
        }
    }

    /// Writes a run of values; no other thread may write there.
    ///
    /// # Panics
    /// If the run is not within the buffer.
    pub(super) fn write(&self, at: usize, values: &[T]) {
        let place = self.place(at, values.len());
        // SAFETY: the run is within the buffer, which is borrowed exclusively and therefore
        // separate from the values.
        unsafe { place.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }

    /// The address of a run of values; no other thread may write there.
    ///
    /// # Panics
    /// If the run is not within the buffer.
    pub(super) fn place(&self, at: usize, length: usize) -> *mut T {
        let end = at.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.length),
            "a run beyond its buffer"
        );
        // SAFETY: within the buffer.
        unsafe { self.start.add(at) }
    }
}
