//! Writes the first inputs of every target below a directory: `seeds DIR`. They are made of what the
//! code itself writes, so that they can be made again when a format has changed.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let dir: PathBuf = env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: seeds DIR"))?.into();
    for target in quorate::fuzzing::TARGETS {
        let dir = dir.join(target.name);
        fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
