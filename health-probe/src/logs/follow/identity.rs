//! Which file is which of those that were read before.

use std::os::unix::fs::MetadataExt;

use super::listing::Candidate;
use super::opened::{Opened, damaged, digest, moved, open, read_full};
use super::{HEAD, Place, TAIL};
use crate::error::{Error, ErrorKind, Result, file};

/// What a file turned out to be.
pub(super) enum Assigned {
    /// Nothing changed.
    Same(Place),
    /// Read up to this place.
    From(Place),
    /// A copy of the log, which is not yet truncated: it is looked at again then.
    Copy,
    /// A copy of the log with nothing in it that was not read: known from now on.
    Passed,
}

pub(super) type Assignments = (Vec<Option<Assigned>>, Vec<Place>);

/// What each file is, as far as it is known; and what was read before and is none of them.
pub(super) fn assign(candidates: &[Candidate], places: &[Place]) -> Result<Assignments> {
    let mut free: Vec<Option<&Place>> = places.iter().map(Some).collect();
    let mut assigned: Vec<Option<Assigned>> = candidates.iter().map(|_| None).collect();
    // What was not touched needs no reading.
    for (candidate, slot) in candidates.iter().zip(&mut assigned) {
        let same = |p: &&Place| {
            (p.device, p.inode, p.size, p.modified)
                == (candidate.device, candidate.inode, candidate.size, candidate.modified)
                && p.live == candidate.live
                && p.finished
        };
        if let Some(at) = free.iter().position(|p| p.as_ref().is_some_and(same)) {
            *slot = free[at].take().cloned().map(Assigned::Same);
        }
    }
    // Does the log still begin and go on as it did?
    let live = candidates.iter().position(|c| c.live);
    let live_place = free.iter().position(|p| p.is_some_and(|p| p.live));
    let mut log_goes_on = false;
    if let (Some(c), Some(p)) = (live, live_place)
        && let Some(place) = free[p]
        && (place.device, place.inode) == (candidates[c].device, candidates[c].inode)
        && holds(&candidates[c], place)?
    {
        assigned[c] = Some(Assigned::From(place.clone()));
        log_goes_on = true;
    }
    for (at, candidate) in candidates.iter().enumerate() {
        if assigned[at].is_some() || candidate.live {
            continue;
        }
        // What is known by its content first, of that its own inode, then what was read furthest. Of a file of which nothing was
        // read, only the inode is known, and that may be another file's by now.
        let mut order: Vec<usize> = (0..free.len()).filter(|i| free[*i].is_some()).collect();
        order.sort_by_key(|i| {
            let of = |p: &Place| {
                let own = (p.device, p.inode) == (candidate.device, candidate.inode);
                (p.offset == 0, !own, std::cmp::Reverse(p.offset))
            };
            free[*i].map(of)
        });
        for i in order {
            let Some(place) = free[i] else { continue };
            let own = (place.device, place.inode) == (candidate.device, candidate.inode);
            if place.offset == 0 && !own {
                continue;
            }
            // The log was truncated, and what lies here may be the copy that was made before: by now it is whole, but when the folder
            // was listed it may still have been growing.
            if place.live && !own && !log_goes_on && !candidate.compressed && grew(candidate)? {
                return Err(moved(&candidate.path));
            }
            if place.live && log_goes_on {
                // Like the log, which is still there: copied and not yet truncated.
                if begins_like(candidate, place)? {
                    assigned[at] = Some(Assigned::Copy);
                    break;
                }
                continue;
            }
            if holds(candidate, place)? {
                assigned[at] = Some(Assigned::From(place.clone()));
                free[i] = None;
                break;
            }
            // The log was truncated after more of it was read than was copied: there is nothing new in the copy.
            if place.live && !own && begins_like(candidate, place)? {
                let length = length(candidate)?;
                if length < place.offset {
                    assigned[at] = Some(Assigned::Passed);
                    free[i] = None;
                    break;
                }
            }
        }
    }
    if log_goes_on && let Some(p) = live_place {
        free[p] = None;
    }
    // A second copy of what was read already: compressed and not yet deleted, or kept under another name.
    for (at, candidate) in candidates.iter().enumerate() {
        if assigned[at].is_none() && !candidate.live {
            for place in places.iter().filter(|p| p.offset > 0 && p.finished) {
                if holds(candidate, place)? && length(candidate)? == place.offset {
                    assigned[at] = Some(Assigned::Passed);
                    break;
                }
            }
        }
    }
    // A copy of a log that nobody read before, not yet truncated.
    if let Some(live) = live.map(|l| &candidates[l]) {
        for (at, candidate) in candidates.iter().enumerate() {
            if assigned[at].is_none() && !candidate.live && is_beginning_of(candidate, live)? {
                assigned[at] = Some(Assigned::Copy);
            }
        }
    }
    let leftover = free.into_iter().flatten().cloned().collect();
    Ok((assigned, leftover))
}

/// Whether the file has all that was read, as far as can be told.
fn holds(candidate: &Candidate, place: &Place) -> Result<bool> {
    if !candidate.compressed && candidate.size < place.offset {
        return Ok(false);
    }
    if place.offset == 0 {
        return Ok(true);
    }
    if !begins_like(candidate, place)? {
        return Ok(false);
    }
    let Some(mut opened) = open(candidate)? else { return Ok(false) };
    let mut tail = vec![0; place.tail_length];
    let whole = opened.skip_to(place.offset - place.tail_length as u64).and_then(|there| match there {
        true => read_full(&mut opened, &mut tail).map(|n| n == tail.len()),
        false => Ok(false),
    });
    let whole = whole.map_err(|e| damaged(candidate, e))?;
    Ok(whole && digest(&tail) == place.tail)
}

/// Whether the file begins as the one that was read did; as much of it as there is, and at least something.
fn begins_like(candidate: &Candidate, place: &Place) -> Result<bool> {
    let wanted = hex::decode(&place.head).map_err(|e| {
        Error::new(ErrorKind::Malformed, format!("what was kept of {} cannot be read", candidate.path.display()))
            .with_source(e)
    })?;
    let Some(mut opened) = open(candidate)? else { return Ok(false) };
    let mut head = vec![0; wanted.len()];
    let read = read_full(&mut opened, &mut head).map_err(|e| damaged(candidate, e))?;
    Ok(read > 0 && wanted.starts_with(&head[..read]))
}

/// Whether a file is what another one begins with, as far as can be told.
fn is_beginning_of(candidate: &Candidate, live: &Candidate) -> Result<bool> {
    if candidate.compressed || candidate.size == 0 || candidate.size > live.size {
        return Ok(false);
    }
    let (Some(mut a), Some(mut b)) = (open(candidate)?, open(live)?) else { return Ok(false) };
    let ends = |opened: &mut Opened| -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let mut head = vec![0; usize::try_from(candidate.size).unwrap_or(HEAD).min(HEAD)];
        read_full(opened, &mut head)?;
        opened.skip_to(candidate.size.saturating_sub(TAIL as u64))?;
        let mut tail = vec![0; usize::try_from(candidate.size).unwrap_or(TAIL).min(TAIL)];
        read_full(opened, &mut tail)?;
        Ok((head, tail))
    };
    Ok(ends(&mut a).map_err(|e| damaged(candidate, e))? == ends(&mut b).map_err(|e| damaged(live, e))?)
}

/// Whether the file is not as long any more as it was when the folder was listed.
fn grew(candidate: &Candidate) -> Result<bool> {
    match std::fs::metadata(&candidate.path) {
        Ok(about) => Ok(about.size() != candidate.size),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(file(&candidate.path, "cannot be read", e)),
    }
}

fn length(candidate: &Candidate) -> Result<u64> {
    if !candidate.compressed {
        return Ok(candidate.size);
    }
    let Some(mut opened) = open(candidate)? else { return Ok(0) };
    std::io::copy(&mut opened, &mut std::io::sink()).map_err(|e| damaged(candidate, e))
}
