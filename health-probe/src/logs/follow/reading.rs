//! Reading on in one file, whole lines at a time, and what it is known by afterwards.

use std::io::Read;

use super::listing::Candidate;
use super::opened::{damaged, digest, moved, open, read_full};
use super::{HEAD, LONGEST, Place, Scan, TAIL};
use crate::error::Result;

/// A file to be read on in.
pub(super) struct Reading<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) from: Option<Place>,
    pub(super) skip: bool,
    pub(super) last_counts: bool,
}

impl Reading<'_> {
    /// Reads on; `None` where the file is gone.
    pub(super) fn run(self, buffer: &mut [u8], scan: &mut Scan, line: &mut impl FnMut(&[u8])) -> Result<Option<Place>> {
        let candidate = self.candidate;
        let damaged = |e| damaged(candidate, e);
        let Some(mut opened) = open(candidate)? else { return Ok(None) };
        let mut place = self.from.unwrap_or_else(|| Place::unread(candidate));
        let begin = place.offset;
        let mut window = Window::default();
        // What the digests are of is read again: a few bytes.
        let mut head = vec![0; (begin as usize).min(HEAD)];
        read_full(&mut opened, &mut head).map_err(damaged)?;
        if begin > 0 {
            opened.skip_to(begin.saturating_sub(TAIL as u64).max(head.len() as u64)).map_err(damaged)?;
            let mut before = vec![0; (begin - opened.at) as usize];
            let read = read_full(&mut opened, &mut before).map_err(damaged)?;
            window.push(&head[head.len().saturating_sub(TAIL)..]);
            window.push(&before);
            // Truncated since it was found to go on as it did.
            if read != before.len() || digest(window.last(place.tail_length)) != place.tail {
                return Err(moved(&candidate.path));
            }
        }
        let mut pending: Vec<u8> = Vec::new();
        let mut too_long = false;
        let mut total = begin;
        let mut consumed = begin;
        let mut unseen = Vec::new();
        loop {
            // Up to the size that it had, so that a busy log has an end.
            let room = match candidate.compressed {
                true => buffer.len(),
                false => buffer.len().min(usize::try_from(candidate.size.saturating_sub(total)).unwrap_or(usize::MAX)),
            };
            if room == 0 {
                break;
            }
            let n = opened.read(&mut buffer[..room]).map_err(damaged)?;
            if n == 0 {
                break;
            }
            let chunk = &buffer[..n];
            total += n as u64;
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', chunk) {
                let piece = &chunk[from..end];
                if !self.skip {
                    if pending.is_empty() && !too_long {
                        line(trimmed(piece));
                    } else {
                        grow(&mut pending, piece, &mut too_long);
                        line(trimmed(&pending));
                    }
                    scan.lines += 1;
                }
                pending.clear();
                too_long = false;
                from = end + 1;
            }
            grow(&mut pending, &chunk[from..], &mut too_long);
            if from > 0 {
                consumed = total - (n - from) as u64;
                if head.len() < HEAD {
                    head.extend_from_slice(&unseen[..unseen.len().min(HEAD - head.len())]);
                    head.extend_from_slice(&chunk[..from.min(HEAD - head.len().min(HEAD))]);
                    head.truncate(HEAD);
                }
                window.push(&unseen);
                window.push(&chunk[..from]);
                unseen.clear();
            }
            keep(&mut unseen, &chunk[from..]);
        }
        // Truncated while it was read, and perhaps written to again: then what was read is of two logs.
        if !candidate.compressed && total > 0 {
            let mut read_last = vec![0; window.last(TAIL).len()];
            opened.skip_to(consumed - read_last.len() as u64).map_err(damaged)?;
            read_full(&mut opened, &mut read_last).map_err(damaged)?;
            let mut read_first = vec![0; head.len()];
            opened.skip_to(0).map_err(damaged)?;
            read_full(&mut opened, &mut read_first).map_err(damaged)?;
            if read_last != window.last(TAIL) || read_first != head {
                return Err(moved(&candidate.path));
            }
        }
        if self.last_counts && consumed < total {
            if !self.skip {
                line(trimmed(&pending));
                scan.lines += 1;
            }
            consumed = total;
            if head.len() < HEAD {
                head.extend_from_slice(&unseen[..unseen.len().min(HEAD - head.len())]);
            }
            window.push(&unseen);
        }
        if !self.skip {
            scan.bytes += consumed - begin;
        }
        place.offset = consumed;
        head.truncate((consumed as usize).min(HEAD));
        place.head = hex::encode(&head);
        let tail = window.last(TAIL.min(consumed as usize));
        (place.tail_length, place.tail) = (tail.len(), digest(tail));
        place.finished = !candidate.live && consumed == total && (self.last_counts || candidate.superseded);
        place.live = candidate.live;
        (place.device, place.inode) = (candidate.device, candidate.inode);
        (place.size, place.modified) = (candidate.size, candidate.modified);
        Ok(Some(place))
    }
}

/// The last bytes of what was consumed.
#[derive(Default)]
struct Window(Vec<u8>);

impl Window {
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() >= TAIL {
            self.0.clear();
            self.0.extend_from_slice(&bytes[bytes.len() - TAIL..]);
            return;
        }
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * TAIL {
            self.0.drain(..self.0.len() - TAIL);
        }
    }

    fn last(&self, n: usize) -> &[u8] {
        &self.0[self.0.len().saturating_sub(n)..]
    }
}

/// An incomplete line's bytes, as many as the digests may need: its beginning and its end.
fn keep(unseen: &mut Vec<u8>, bytes: &[u8]) {
    unseen.extend_from_slice(bytes);
    if unseen.len() > 4 * LONGEST {
        let end = unseen.split_off(unseen.len() - TAIL);
        unseen.truncate(HEAD);
        unseen.extend_from_slice(&end);
    }
}

fn grow(pending: &mut Vec<u8>, piece: &[u8], too_long: &mut bool) {
    let room = LONGEST - pending.len().min(LONGEST);
    pending.extend_from_slice(&piece[..piece.len().min(room)]);
    *too_long |= piece.len() > room;
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[..line.len().min(LONGEST)]
}
