//! What is moved: the same files each time, half of them without a pattern and half of them text.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDERS: u64 = 100;
const FILES_A_FOLDER: u64 = 100;
const LARGE: u64 = 4;
const LARGE_SIZE: usize = 75 << 20;
/// Of a small file, kilobytes.
const SMALLEST: u64 = 1;
const LARGEST: u64 = 20;
const KILOBYTE: usize = 1000;
/// Of those beside the small ones that the row `files` has.
const TINY: u64 = 1000;
const MEGABYTE: usize = 1_000_000;
const MEBIBYTE: u64 = 1 << 20;

/// A source of numbers that is the same for the same seed: xorshift64*.
pub struct Numbers(u64);

impl Numbers {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One of `0..limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Words in an order of chance, as logs and sources have them: no long part of it comes twice.
    fn text(&mut self, length: usize) -> Vec<u8> {
        const SYLLABLES: [&str; 16] = [
            "ka", "lo", "mi", "ter", "an", "pro", "so", "vel", "ri", "ent", "qua", "ba", "dis", "un", "ge",
            "tra",
        ];
        let mut text = String::with_capacity(length + 64);
        while text.len() < length {
            let mut bits = self.next();
            for _ in 0..5 {
                for _ in 0..1 + (bits & 1) + (bits >> 1 & 1) {
                    text.push_str(SYLLABLES[usize::try_from(bits >> 2 & 15).unwrap_or(0)]);
                    bits >>= 4;
                }
                text.push(' ');
            }
            if bits.trailing_zeros() >= 3 {
                let _ = writeln!(text, "{bits:x}");
            }
        }
        text.truncate(length);
        text.into_bytes()
    }

    /// Content of the file with this number: every second one is text.
    fn content(&mut self, number: u64, length: usize) -> Vec<u8> {
        if number.is_multiple_of(2) { self.noise(length) } else { self.text(length) }
    }
}

/// 420 MB in 10,000 small and 4 large files.
pub fn mixed(at: &Path) {
    let mut numbers = Numbers::seeded(1);
    for folder in 0..FOLDERS {
        let path = at.join(format!("folder-{folder:03}"));
        fs::create_dir_all(&path).expect("a folder");
        for file in 0..FILES_A_FOLDER {
            let length = kilobytes(&mut numbers);
            fs::write(path.join(format!("file-{file:03}.dat")), numbers.content(file, length))
                .expect("a file");
        }
    }
    for file in 0..LARGE {
        fs::write(at.join(format!("large-{file}.dat")), numbers.content(file, LARGE_SIZE)).expect("a file");
    }
}

fn kilobytes(numbers: &mut Numbers) -> usize {
    let length = SMALLEST + numbers.below(LARGEST - SMALLEST + 1);
    usize::try_from(length).expect("it is small") * KILOBYTE
}

/// One change in a hundred: 100 small files rewritten, 3 MB within the large ones, one folder renamed. Another one
/// each round, the same for everyone.
pub fn change(at: &Path, round: u64) {
    let mut numbers = Numbers::seeded(1000 + round);
    let mut folders: Vec<PathBuf> = fs::read_dir(at)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let one_of = |numbers: &mut Numbers| {
        let count = u64::try_from(folders.len()).expect("it fits");
        folders[usize::try_from(numbers.below(count)).expect("it fits")].clone()
    };
    for file in 0..100 {
        let path = one_of(&mut numbers).join(format!("file-{:03}.dat", numbers.below(FILES_A_FOLDER)));
        let length = kilobytes(&mut numbers);
        fs::write(path, numbers.content(file, length)).expect("a file");
    }
    for file in 0..3 {
        let path = at.join(format!("large-{file}.dat"));
        let place = numbers.below(u64::try_from(LARGE_SIZE - MEGABYTE).expect("it fits"));
        overwrite(&path, place, &numbers.content(file, MEGABYTE));
    }
    let folder = one_of(&mut numbers);
    let name = folder.file_name().and_then(|name| name.to_str()).expect("it was named here");
    fs::rename(&folder, at.join(format!("{name}-{round}"))).expect("a folder can be renamed");
}

/// One file without a pattern.
pub fn large(at: &Path, mebibytes: u64) {
    let mut numbers = Numbers::seeded(2);
    let file = File::create(at.join("disk.img")).expect("a file");
    for number in 0..mebibytes {
        let part = numbers.noise(usize::try_from(MEBIBYTE).expect("it fits"));
        file.write_all_at(&part, number * MEBIBYTE).expect("it can be written");
    }
}

/// One MiB of the large file is another, somewhere.
pub fn change_large(at: &Path, mebibytes: u64, round: u64) {
    let mut numbers = Numbers::seeded(2000 + round);
    let place = numbers.below((mebibytes - 1) * MEBIBYTE);
    overwrite(&at.join("disk.img"), place, &numbers.noise(usize::try_from(MEBIBYTE).expect("it fits")));
}

/// Many files of 100 to 1,099 bytes, a thousand in each folder.
pub fn tiny(at: &Path, files: u64) {
    let mut numbers = Numbers::seeded(3);
    for file in 0..files {
        let folder = at.join(format!("folder-{:04}", file / TINY));
        if file.is_multiple_of(TINY) {
            fs::create_dir(&folder).expect("a folder");
        }
        let length = usize::try_from(100 + numbers.below(TINY)).expect("it is small");
        fs::write(folder.join(format!("file-{file:07}")), numbers.content(file, length)).expect("a file");
    }
}

fn overwrite(path: &Path, place: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("a file");
    file.write_all_at(bytes, place).expect("it can be written");
}

/// Takes everything out of a folder.
pub fn empty(at: &Path) {
    for entry in fs::read_dir(at).expect("a folder") {
        let path = entry.expect("an entry").path();
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.expect("it can be removed");
    }
}

/// Whether two trees hold the same, as rsync sees it.
pub fn compare(one: &Path, other: &Path) -> Result<(), String> {
    let compared = Command::new("rsync")
        .args(["-naHAXc", "--delete", "--itemize-changes"])
        .arg(format!("{}/", one.display()))
        .arg(format!("{}/", other.display()))
        .output()
        .map_err(|error| format!("rsync: {error}"))?;
    let said = String::from_utf8_lossy(&compared.stdout);
    let differing: Vec<&str> = said.lines().take(5).collect();
    match (compared.status.success(), differing.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("the target is another than the source: {differing:?}")),
        (false, _) => Err(String::from_utf8_lossy(&compared.stderr).into_owned()),
    }
}
