//! The shop's uploads: images that do not compress, documents that do.

use std::fs;
use std::io::Write;
use std::path::Path;

use fastrand::Rng;

use crate::Error;

/// Makes `files` files of some `mean` bytes each under `root`: nine in ten are images, the rest documents, in folders of
/// about a hundred; beside them a link and an empty folder. Returns how many bytes.
pub fn create(root: &Path, seed: u64, files: u64, mean: usize) -> Result<u64, Error> {
    let mut rng = Rng::with_seed(seed);
    let mut total = 0;
    let mut bytes = Vec::new();
    for n in 0..files {
        let image = n % 10 != 9;
        let folder = if image { format!("products/{:03}", n / 100) } else { format!("invoices/{:03}", n / 100) };
        let folder = root.join(folder);
        if n % 100 == 0 || n % 100 == 9 {
            fs::create_dir_all(&folder)?;
        }
        // Most files are small and a few large, as in life.
        let size = mean / 4 + rng.usize(0..mean.max(2)) / 2 + if n % 50 == 0 { mean * 12 } else { 0 };
        bytes.clear();
        if image {
            bytes.extend_from_slice(b"\xff\xd8\xff\xe0\0\x10JFIF\0");
            bytes.resize(size.max(16), 0);
            rng.fill(&mut bytes[12..]);
        } else {
            while bytes.len() < size {
                writeln!(bytes, "Invoice {n}, line {}: Golden necklace, 1 x {}.00 GBP", bytes.len(), rng.u8(..))?;
            }
        }
        let name = if image { format!("image-{n:06}.jpg") } else { format!("invoice-{n:06}.txt") };
        fs::write(folder.join(name), &bytes)?;
        total += bytes.len() as u64;
    }
    fs::create_dir_all(root.join("empty"))?;
    let link = root.join("latest");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("products/000", link)?;
    }
    Ok(total)
}
