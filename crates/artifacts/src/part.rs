//! The memory in which a part of an object waits until it is sent.

use std::io;

use bytes::Bytes;
use memmap2::MmapMut;

use crate::PART_BYTES;

/// What was gathered of one part, up to [`PART_BYTES`].
///
/// Mapped memory and not a `Vec`: the kernel has it back as soon as the part was sent. glibc's allocator, once it has freed a
/// block of this size, cuts the following ones from its arenas, where small blocks that stay keep them: an upload left up to
/// 30 MB behind. Pages that nothing was written to take no memory, so that a small object costs what it holds.
#[derive(Default)]
pub(crate) struct Part {
    /// `None` before the first byte.
    memory: Option<MmapMut>,
    n_bytes: usize,
}

impl Part {
    pub(crate) fn is_empty(&self) -> bool {
        self.n_bytes == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.n_bytes == PART_BYTES
    }

    /// Moves what there is room for from the chunk's beginning to the part's end.
    ///
    /// # Errors
    ///
    /// When the system has no memory for a new part.
    pub(crate) fn take_from(&mut self, chunk: &mut Bytes) -> io::Result<()> {
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(MmapMut::map_anon(PART_BYTES)?),
        };
        let taken = chunk.split_to(chunk.len().min(PART_BYTES - self.n_bytes));
        let end = self.n_bytes + taken.len();
        memory[self.n_bytes..end].copy_from_slice(&taken);
        self.n_bytes = end;
        Ok(())
    }

    /// What was gathered; the memory is given back with the last of its clones.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.memory {
            Some(memory) => Bytes::from_owner(memory).slice(..self.n_bytes),
            None => Bytes::new(),
        }
    }
}
