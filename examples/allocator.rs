//! The C library's allocator, told to give memory back.

/// Environment variables of glibc's allocator (mallopt(3)): one arena for all threads instead of one for each, and blocks
/// up to 8 MiB from its heap, of which 64 MiB may stay with the program. A backup hands blocks of megabytes from thread to
/// thread. With the defaults what it needs at its peak grows with how long it runs; and where each block is given back to
/// the system as it is freed, half of the time goes into fresh pages. `memory` of the benches measures the one, `peers`
/// the other.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "8388608"), ("MALLOC_TRIM_THRESHOLD_", "67108864")];

/// Starts this program anew, in the same process and with the same arguments, with the allocator's settings in its
/// environment: they are read before `main` begins. Does nothing where any of them is set already, or on other systems.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn tune() {
    use std::os::unix::process::CommandExt;

    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It comes back only where it failed, and then this process does the work as it is.
    let e = command.args(arguments).envs(SETTINGS).exec();
    tracing::debug!(error = %e, "the allocator keeps its default settings");
}

/// Nothing to tell other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn tune() {}
