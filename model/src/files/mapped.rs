//! The bytes of a file, mapped and used in place, or copied.

use crate::error::{Error, Result};
use memmap2::{Mmap, MmapMut};
use std::{fs::File, io::Read, ops::Deref, path::Path};

/// How files of weights come into memory.
pub enum Loading<'a> {
    /// Mapped: pages come as they are used, and are shared with other programs. The files must not change meanwhile.
    Map,
    /// Copied: what becomes of the files afterwards does not matter. Told how many bytes of how many are there.
    Copy(&'a mut dyn FnMut(u64, u64)),
}

/// Bytes that are copied at a time.
const PIECE: usize = 16 << 20;

/// The bytes of a file, or a part of one.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mapping),
    Embedded(&'static [u8]),
    /// In memory of their own: files that were to be copied, and tensors that their file does not align for their element type, which
    /// is rare, but lawful.
    Copied(MmapMut),
}

impl Bytes {
    pub(super) fn load(path: &Path, loading: &mut Loading<'_>) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        match loading {
            Loading::Map => Ok(Self::Mapped(Mapping::new(&file, path)?)),
            Loading::Copy(progress) => copy(file, progress).map(Self::Copied).map_err(Error::io(path)),
        }
    }

    /// A copy at the start of a page of its own.
    pub(super) fn copied(bytes: &[u8], path: &Path) -> Result<Self> {
        let mut copy = MmapMut::map_anon(bytes.len().max(1)).map_err(Error::io(path))?;
        copy[..bytes.len()].copy_from_slice(bytes);
        Ok(Self::Copied(copy))
    }

    pub(super) const fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(_))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => &bytes.memory,
            Self::Embedded(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

fn copy(mut file: File, progress: &mut dyn FnMut(u64, u64)) -> std::io::Result<MmapMut> {
    let len = file.metadata()?.len();
    let mut memory = MmapMut::map_anon(usize::try_from(len).unwrap_or(usize::MAX).max(1))?;
    // A wish: weights are read from beginning to end, which large pages make faster.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    let mut done = 0;
    for piece in memory[..len as usize].chunks_mut(PIECE) {
        file.read_exact(piece)?;
        done += piece.len() as u64;
        progress(done, len);
    }
    Ok(memory)
}

/// A file's mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: Mmap,
    #[cfg(unix)]
    _watched: watch::Watched,
}

impl Mapping {
    fn new(file: &File, path: &Path) -> Result<Self> {
        #[expect(unsafe_code, reason = "the one place where files become memory")]
        // SAFETY: the mapping is read-only and private to this process. Rust's rule that the bytes do not change
        // while borrowed can be broken by another process writing to the file, as with every mmapped checkpoint;
        // what is read are plain numbers, for which any bit pattern is valid.
        let memory = unsafe { Mmap::map(file) }.map_err(Error::io(path))?;
        Ok(Self {
            #[cfg(unix)]
            _watched: watch::Watched::new(&memory, path),
            memory,
        })
    }
}

#[cfg(unix)]
pub use watch::end_when_truncated;

/// What happens when a mapped file is cut short: the system ends the program with SIGBUS, without a word.
#[cfg(unix)]
mod watch {
    use std::{
        path::Path,
        sync::{
            OnceLock,
            atomic::{AtomicPtr, AtomicUsize, Ordering},
        },
    };

    /// Mappings that are watched at most; further ones end without a word.
    const MOST: usize = 512;

    /// A mapping: from where to where, and what is said when it is lost. All zero if it is free.
    struct Slot {
        start: AtomicUsize,
        end: AtomicUsize,
        message: AtomicPtr<Message>,
    }

    /// What is said when a mapping is lost; it stays where it is.
    #[derive(Debug)]
    struct Message(Vec<u8>);

    static SLOTS: [Slot; MOST] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            message: AtomicPtr::new(std::ptr::null_mut()),
        }
    }; MOST];

    /// The beginning of messages, once somebody wants them.
    static PREFIX: OnceLock<&'static str> = OnceLock::new();

    /// A slot that is taken, and what it says.
    #[derive(Debug)]
    pub(super) struct Watched {
        slot: Option<usize>,
        _message: Box<Message>,
    }

    impl Watched {
        pub(super) fn new(memory: &[u8], path: &Path) -> Self {
            let start = memory.as_ptr() as usize;
            let slot = SLOTS.iter().enumerate().find(|(_, slot)| {
                slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            });
            let message = format!(
                "{}: was cut short while it was in use; restore it, and load it with --weights copy if it may change\n",
                path.display()
            );
            let message = Box::new(Message(message.into_bytes()));
            if let Some((_, slot)) = slot {
                slot.message.store(std::ptr::from_ref(&*message).cast_mut(), Ordering::Release);
                slot.end.store(start + memory.len(), Ordering::Release);
            }
            Self { slot: slot.map(|(number, _)| number), _message: message }
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            if let Some(slot) = self.slot.map(|number| &SLOTS[number]) {
                slot.end.store(0, Ordering::Release);
                slot.message.store(std::ptr::null_mut(), Ordering::Release);
                slot.start.store(0, Ordering::Release);
            }
        }
    }

    /// From now on the program says which file it was and ends with code 1 if a mapped file is cut short. What it says begins with
    /// `prefix`. For programs, not for libraries: there is one such handler.
    pub fn end_when_truncated(prefix: &'static str) {
        if PREFIX.set(prefix).is_err() {
            return;
        }
        #[expect(unsafe_code, reason = "handlers of signals are the C library's")]
        // SAFETY: the structure is plain numbers, zero is none set; the handler has the type that SA_SIGINFO asks for and does only what
        // is allowed in one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    }

    extern "C" fn on_bus_error(
        _signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        #[expect(unsafe_code, reason = "what the system tells a handler is behind a pointer")]
        // SAFETY: the system gives a valid one.
        let address = unsafe { (*info).si_addr() } as usize;
        let found = SLOTS.iter().find(|slot| {
            let (start, end) = (slot.start.load(Ordering::Acquire), slot.end.load(Ordering::Acquire));
            (start..end).contains(&address)
        });
        let message = found.map(|slot| slot.message.load(Ordering::Acquire));
        #[expect(unsafe_code, reason = "the few functions that handlers may call are the C library's")]
        // SAFETY: a mapping that is being read is alive, and so is its message, which is never changed; write, _exit and signal may be
        // called in a handler.
        unsafe {
            let Some(message) = message.and_then(|message| message.as_ref()) else {
                // Nothing of ours: the same access fails again, in the system's way.
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                return;
            };
            for text in [PREFIX.get().map_or(&b""[..], |prefix| prefix.as_bytes()), &message.0] {
                libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
            }
            libc::_exit(1);
        }
    }
}
