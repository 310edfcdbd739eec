//! Figures for people, and progress bars.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{Event, NoProgress, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Bytes as people read them: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Bytes as people write them: `20G`, `500M`, `1048576`; K, M, G and T count by 1,024.
///
/// # Errors
/// A sentence where it is no such thing.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes: write 20G, 500M or 1048576");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// A count with thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration as people read it: `0.35 s`, `4 min 10 s`, `3 d 4 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=59 => format!("{:.2} s", time.as_secs_f64()),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes per second as people read them; nothing where no time passed.
pub fn rate(bytes: u64, time: Duration) -> String {
    if time.is_zero() { "—".into() } else { format!("{}/s", size((bytes as f64 / time.as_secs_f64()) as u64)) }
}

/// A bar on stderr where that is a terminal, nothing elsewhere.
pub fn progress(verb: &'static str) -> Arc<dyn Progress> {
    if !std::io::stderr().is_terminal() {
        return Arc::new(NoProgress);
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    Arc::new(Bar { verb, bar, plain: AtomicU64::new(0), stored: AtomicU64::new(0) })
}

#[derive(Debug)]
struct Bar {
    verb: &'static str,
    bar: ProgressBar,
    plain: AtomicU64,
    stored: AtomicU64,
}

impl Progress for Bar {
    fn on(&self, event: Event<'_>) {
        match event {
            Event::Began { name } => self.bar.set_message(format!("{} {name}", self.verb)),
            Event::Moved { plain, stored } => {
                let plain = self.plain.fetch_add(plain, Ordering::Relaxed) + plain;
                let stored = self.stored.fetch_add(stored, Ordering::Relaxed) + stored;
                let rate = rate(plain.max(stored), self.bar.elapsed());
                self.bar.set_message(format!("{} {} read, {} stored, {rate}", self.verb, size(plain), size(stored)));
            }
            Event::Paused { reason } => self.bar.set_message(format!("pausing: {reason}")),
            _ => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(duration(Duration::from_secs(250)), "4 min 10 s");
        assert_eq!(rate(1024, Duration::ZERO), "—");
    }
}
