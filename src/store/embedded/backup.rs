//! A copy of all records as of one group: as a stream from a store that is in use, and as a folder made of the stream.
//!
//! The stream says how records are written, gives one after the other, and ends with their number and a checksum: one that
//! was cut off is none. The folder takes its name last, so that a copy with its name is whole.

use std::{
    ffi::OsString,
    fs, io, mem,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    disk::{Disk, DiskError, Group, Record, Records, Space},
    folder::{FORMAT, Place, io_error, sync_folder},
    record,
};

/// What a stream begins with; the format of the records follows.
const MAGIC: &[u8] = b"oncegate backup\n";
/// What stands in the place of a space at the end.
const END: u8 = 0xff;
/// Bytes of a piece of the stream.
const PIECE: usize = 64 << 10;
/// Bytes that are written as one group.
const GROUP: usize = 4 << 20;
/// What stands before a key: the space, the length of the key, the length of the value.
const HEAD: usize = 6;
/// What stands at the end: its sign, how many records there were, and the checksum of all before it.
const FOOT: usize = 13;

/// The stream of some records, piece by piece.
pub struct Pieces {
    records: Option<Records>,
    begun: bool,
    count: u64,
    sum: crc32fast::Hasher,
}

impl Pieces {
    /// The stream of these.
    #[must_use]
    pub fn of(records: Records) -> Self {
        Self { records: Some(records), begun: false, count: 0, sum: crc32fast::Hasher::new() }
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let records = self.records.as_mut()?;
        let mut piece = Vec::with_capacity(PIECE + (PIECE >> 2));
        if !mem::replace(&mut self.begun, true) {
            piece.extend_from_slice(MAGIC);
            piece.extend_from_slice(&FORMAT.to_be_bytes());
        }
        while piece.len() < PIECE {
            match records.next() {
                Some(Ok(record)) => {
                    write(&record, &mut piece);
                    self.count += 1;
                }
                Some(Err(error)) => {
                    self.records = None;
                    return Some(Err(error));
                }
                None => {
                    self.records = None;
                    piece.push(END);
                    piece.extend_from_slice(&self.count.to_be_bytes());
                    self.sum.update(&piece);
                    let sum = mem::take(&mut self.sum).finalize();
                    piece.extend_from_slice(&sum.to_be_bytes());
                    return Some(Ok(piece.into()));
                }
            }
        }
        self.sum.update(&piece);
        Some(Ok(piece.into()))
    }
}

fn write((space, key, value): &Record, into: &mut Vec<u8>) {
    into.push(*space as u8);
    into.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    into.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(key);
    into.extend_from_slice(value);
}

/// A folder that is being made of a stream.
pub struct Copy {
    folder: PathBuf,
    /// What it is called until it is whole.
    unfinished: PathBuf,
    disk: Box<dyn Disk>,
    rest: Vec<u8>,
    begun: bool,
    group: Group,
    count: u64,
    sum: crc32fast::Hasher,
}

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The number of the last group in it.
    pub group: u64,
    /// How many records.
    pub records: u64,
}

impl Copy {
    /// Begins a copy that shall be called so.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: there is something already, or it can't be written.
    pub fn called(folder: &Path) -> Result<Self, DiskError> {
        let is_there = fs::read_dir(folder).map_or_else(|_| folder.exists(), |mut entries| entries.next().is_some());
        if is_there {
            let folder = folder.display();
            return Err(DiskError::Refused(format!("{folder} is there already: a copy gets a folder of its own")));
        }
        let mut unfinished = OsString::from(folder);
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&unfinished)(error)),
            _ => {}
        }
        let disk = Place::at(unfinished.clone()).open_alone()?;
        Ok(Self {
            folder: folder.to_owned(),
            unfinished,
            disk,
            rest: Vec::new(),
            begun: false,
            group: Group::new(0),
            count: 0,
            sum: crc32fast::Hasher::new(),
        })
    }

    /// Takes what has come of the stream.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: it is none, or it can't be written.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(length) = self.step(taken)? {
            taken += length;
        }
        self.sum.update(&self.rest[..taken]);
        self.rest.drain(..taken);
        Ok(())
    }

    /// Takes one part of what has come, if there is a whole one; how long it was.
    fn step(&mut self, at: usize) -> Result<Option<usize>, DiskError> {
        let rest = &self.rest[at..];
        if !self.begun {
            let head = MAGIC.len() + 4;
            let Some((magic, format)) = rest.get(..head).map(|head| head.split_at(MAGIC.len())) else {
                return Ok(None);
            };
            if magic != MAGIC {
                return Err(no_backup("it is no backup of a gate"));
            }
            if format != FORMAT.to_be_bytes() {
                return Err(no_backup("the gate writes another format: use the program of its version"));
            }
            self.begun = true;
            return Ok(Some(head));
        }
        match rest.first() {
            None | Some(&END) => Ok(None),
            Some(&space) => {
                let Some(head) = rest.get(..HEAD) else { return Ok(None) };
                let space = Space::ALL.get(usize::from(space)).copied().ok_or_else(|| no_backup("it is damaged"))?;
                let key = usize::from(head[1]);
                let value = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
                let Some(both) = rest.get(HEAD..HEAD + key + value) else { return Ok(None) };
                let (key, value) = both.split_at(key);
                if space == Space::Tail {
                    self.group.number = record::read_tail(value)?.group;
                }
                self.group.put(space, key, |into| into.extend_from_slice(value));
                self.count += 1;
                let length = HEAD + both.len();
                if self.group.size() >= GROUP {
                    self.write()?;
                }
                Ok(Some(length))
            }
        }
    }

    fn write(&mut self) -> Result<(), DiskError> {
        let next = Group::new(self.group.number);
        self.disk.write(&mem::replace(&mut self.group, next))
    }

    /// The stream is at its end: the copy is made sure of and gets its name.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: the stream was cut off or damaged, or the copy can't be read.
    pub fn finish(mut self) -> Result<Copied, DiskError> {
        let foot: [u8; FOOT] = self.rest[..]
            .try_into()
            .map_err(|_| no_backup("it was cut off: the gate has ended, or its store failed"))?;
        let (told, sum) = foot.split_at(FOOT - 4);
        self.sum.update(told);
        if told[1..] != self.count.to_be_bytes() || sum != self.sum.clone().finalize().to_be_bytes() {
            return Err(no_backup("it is damaged"));
        }
        self.write()?;
        let Self { folder, unfinished, disk, group, count, .. } = self;
        drop(disk);
        let mut found = 0;
        Place::at(unfinished.clone()).open_alone()?.read(&mut |_, _, _| {
            found += 1;
            Ok(())
        })?;
        if found != count {
            return Err(DiskError::Damaged(format!("of {count} records {found} are found again")));
        }
        fs::rename(&unfinished, &folder).map_err(io_error(&folder))?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent).map_err(io_error(parent))?;
        Ok(Copied { group: group.number, records: count })
    }
}

fn no_backup(why: &str) -> DiskError {
    DiskError::Damaged(format!("what comes can't be kept as a backup: {why}"))
}
