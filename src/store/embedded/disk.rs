//! What the engine asks of whatever keeps its records: read all of them once, write a group of them as one.

use std::{fmt, ops::Range};

use super::record::Damaged;
use crate::callback::Key;

/// A sort of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The numbers of the last group and of the last line of history, under [`TAIL`].
    Tail,
    /// The choices that deliveries were decided with, by digest. Read before deliveries.
    Policies,
    /// What is known of each payment, by its key.
    Transactions,
    /// What is on its way, by its number.
    Deliveries,
    /// Leases that no delivery in the app speaks of, by number.
    Leases,
    /// What is remembered of names, by key.
    Names,
    /// What has paid what is paid once, by key.
    Bills,
    /// Lines of history, by the number of the last one in the record.
    History,
}

impl Space {
    /// Every space, in the order in which they are read.
    pub const ALL: [Self; 8] = [
        Self::Tail,
        Self::Policies,
        Self::Transactions,
        Self::Deliveries,
        Self::Leases,
        Self::Names,
        Self::Bills,
        Self::History,
    ];

    /// Its name on the disk.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::Policies => "policies",
            Self::Transactions => "transactions",
            Self::Deliveries => "deliveries",
            Self::Leases => "leases",
            Self::Names => "names",
            Self::Bills => "bills",
            Self::History => "history",
        }
    }
}

/// The key of the one record in [`Space::Tail`].
pub const TAIL: &[u8] = b"tail";

/// Why the disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It refuses: full, read-only, gone, broken.
    #[error("{0}")]
    Refused(String),
    /// What is on it is not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl From<Damaged> for DiskError {
    fn from(error: Damaged) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What takes a record that was read: its space, its key and its bytes.
pub type Take<'t> = &'t mut dyn FnMut(Space, &[u8], &[u8]) -> Result<(), Damaged>;

/// One record: its space, its key and its bytes.
pub type Record = (Space, Vec<u8>, Vec<u8>);

/// Records that are read one after the other.
pub type Records = Box<dyn Iterator<Item = Result<Record, DiskError>> + Send>;

/// An open store of records.
pub trait Disk: Send {
    /// Reads every record once, space by space in the order of [`Space::ALL`], each in the order of its keys.
    ///
    /// # Errors
    ///
    /// [`DiskError`], also where `take` refuses.
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError>;

    /// Writes a group: all of it or nothing, and it is durable when this returns. After an error nothing more can be
    /// written, and whether this group was is not known until it is opened anew.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    fn write(&mut self, group: &Group) -> Result<(), DiskError>;

    /// Every record as it is now, in the order of [`Self::read`], whatever is written while they are read.
    fn records(&self) -> Records;
}

/// Where a disk is opened, again and again if need be.
pub trait Medium: Send {
    /// Opens it; whatever was opened before has been dropped.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    fn open(&mut self) -> Result<Box<dyn Disk>, DiskError>;
}

/// Records that are written together.
pub struct Group {
    /// Counts the groups, from 1.
    pub number: u64,
    bytes: Vec<u8>,
    records: Vec<Written>,
}

/// A key of at most 16 bytes, and where in the group's bytes the record stands; `None` where it is to be removed.
struct Written {
    space: Space,
    key: [u8; 16],
    key_len: usize,
    value: Option<Range<usize>>,
}

impl Group {
    /// An empty group.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, bytes: Vec::new(), records: Vec::new() }
    }

    /// A record as it shall be.
    pub fn put(&mut self, space: Space, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let value = Some(start..self.bytes.len());
        self.push(space, key, value);
    }

    /// A record that shall not be.
    pub fn remove(&mut self, space: Space, key: &[u8]) {
        self.push(space, key, None);
    }

    /// The same for what is known by a digest: written where there is something, removed where there is nothing.
    pub fn set<T>(&mut self, space: Space, key: Key, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        match value {
            Some(value) => self.put(space, key.as_bytes(), |into| write(value, into)),
            None => self.remove(space, key.as_bytes()),
        }
    }

    fn push(&mut self, space: Space, from: &[u8], value: Option<Range<usize>>) {
        let mut key = [0; 16];
        let key_len = from.len().min(key.len());
        key[..key_len].copy_from_slice(&from[..key_len]);
        self.records.push(Written { space, key, key_len, value });
    }

    /// Bytes of the records.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The records, in the order in which they were put: of two with one key the later holds.
    pub fn records(&self) -> impl Iterator<Item = (Space, &[u8], Option<&[u8]>)> {
        self.records.iter().map(|record| {
            let value = record.value.clone().map(|range| &self.bytes[range]);
            (record.space, &record.key[..record.key_len], value)
        })
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} of {} records, {} bytes", self.number, self.records.len(), self.bytes.len())
    }
}
