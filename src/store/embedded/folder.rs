//! The records in a folder, kept by fjall: who may open it, in which format it is, and what is made sure of before.
//!
//! Beside fjall's own files stand three of ours. `lock` keeps a second process out. `format` says how records are
//! written. `acknowledged` tells the last group that anybody was told of: fjall takes a damaged journal for a torn one
//! and drops what follows, and would do so in silence.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    panic::AssertUnwindSafe,
    path::{self, Path, PathBuf},
    sync::Arc,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, config::FilterPolicy};

use super::{
    disk::{Disk, DiskError, Group, Medium, Records, Space, TAIL, Take},
    record,
};

/// How records are written; see `record`. What was written by formats 1 to 4 is read by this one as it is: in 1 the tail has
/// no time, in 1 and 2 no delivery is sealed, the first three know no bills, nor of money more than that it has moved, nor who
/// may be acknowledged first, and in none of the four is anything confirmed. A format that reads otherwise what an earlier
/// one wrote brings the way from there into `Folder::open`.
pub const FORMAT: u32 = 5;
/// The earliest that is read.
const EARLIEST: u32 = 1;

/// Everything is read once and then known, so there is little to cache.
const CACHE: u64 = 1 << 20;
/// How much of a space waits in memory to be sorted into its tables. Up to five times as much does where more comes than is
/// sorted, and is to be read from the journals at a start.
const MEMTABLE: u64 = 4 << 20;
/// When sealed journals take so much, what keeps the oldest of them is sorted into its tables. The least that the library
/// takes; it begins a new journal every 64 MB, so that they take about three times as much at most.
const JOURNALS: u64 = 64 << 20;

/// A folder that this process has for itself.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    acknowledged: Acknowledged,
    /// The format that it was found in; `None` where it was begun just now.
    format: Option<u32>,
    /// Held as long as the folder is ours.
    lock: Held,
}

impl Folder {
    /// Takes a folder, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: another process has it, it can't be written, or it is in a format that can't be read.
    fn take(path: &Path) -> Result<Self, DiskError> {
        // Whole requests lie in there, and what payers are called.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(not_ours(path))?;
        let open = |name: &str| {
            let file = path.join(name);
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file).map_err(not_ours(&file))
        };
        let lock = open("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(DiskError::Refused(format!("{path} is in use by another gate; two can't share one store")));
            }
            Err(TryLockError::Error(error)) => return Err(io_error(&path.join("lock"))(error)),
        }
        let acknowledged = Acknowledged { path: path.join("acknowledged"), file: Arc::new(open("acknowledged")?) };
        let lock = Held::of(path.join("lock"), lock)?;
        let mut folder = Self { path: path.to_owned(), acknowledged, format: None, lock };
        folder.format = folder.check_format()?;
        Ok(folder)
    }

    fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Writes down the format of a new folder, and refuses one that is not ours to read. Says which it was found in.
    fn check_format(&self) -> Result<Option<u32>, DiskError> {
        let file = self.path.join("format");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.store().exists() => {
                self.acknowledged.write(0)?;
                self.write_format()?;
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io_error(&file)(error)),
        };
        match text.trim().parse::<u32>() {
            Ok(format @ EARLIEST..=FORMAT) => Ok(Some(format)),
            Ok(later) if later > FORMAT => Err(DiskError::Refused(format!(
                "{} was written by a later version (format {later}, this one reads up to {FORMAT}); run that version",
                self.path.display()
            ))),
            _ => Err(damaged(&self.path, format_args!("{} does not say a format: {text:?}", file.display()))),
        }
    }

    /// From here on it is in the present format: all of the mark or nothing of it.
    fn write_format(&self) -> Result<(), DiskError> {
        let (file, new) = (self.path.join("format"), self.path.join("format.new"));
        let written = write_whole(&new, format!("{FORMAT}\n").as_bytes());
        written.and_then(|()| fs::rename(&new, &file)).map_err(io_error(&file))?;
        sync_folder(&self.path).map_err(io_error(&self.path))
    }

    /// Puts a copy in the place of each journal that may hold what is in no table yet, and the journal aside.
    ///
    /// After a failed fsync the system takes what it could not write for written: it is read back from memory, and gone
    /// with the power. A copy is written anew, and is known to be on the disk. And whatever fjall cuts off of it, the
    /// original stays until nothing is known to be missing.
    fn copy_journals(&self) -> io::Result<()> {
        let (store, aside) = (self.store(), self.path.join("aside"));
        self.put_back()?;
        if !store.exists() {
            return Ok(());
        }
        fs::create_dir_all(&aside)?;
        for entry in fs::read_dir(&store)? {
            let journal = entry?.path();
            let (Some(name), true) = (journal.file_name(), journal.extension().is_some_and(|end| end == "jnl")) else {
                continue;
            };
            let (original, copy) = (File::open(&journal)?, self.path.join("copy"));
            let end = written_end(&original)?;
            copy_anew(&original, end, &copy).map_err(|error| {
                // Half of it would only take the room that others wait for.
                _ = fs::remove_file(&copy);
                let kind = error.kind();
                if kind != io::ErrorKind::StorageFull {
                    return error;
                }
                let needed = end.div_ceil(1 << 20);
                io::Error::new(kind, format!("{error}; to be opened it needs {needed} MiB of room"))
            })?;
            fs::hard_link(&journal, aside.join(name))?;
            fs::rename(&copy, &journal)?;
        }
        sync_folder(&aside)?;
        sync_folder(&store)
    }

    /// Puts the originals back where an attempt to open was cut off or went wrong.
    fn put_back(&self) -> io::Result<()> {
        let (store, aside) = (self.store(), self.path.join("aside"));
        if !aside.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&aside)? {
            let original = entry?.path();
            if let Some(name) = original.file_name() {
                fs::rename(&original, store.join(name))?;
            }
        }
        sync_folder(&store)?;
        fs::remove_dir(&aside)
    }

    /// Nothing is missing: the originals are not needed.
    fn let_go(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.path.join("aside")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens it, and makes sure that nothing is missing that anybody was told of.
    fn open_whole(&self) -> Result<Opened, DiskError> {
        self.check_spaces()?;
        // What is damaged may be more than the library has thought of.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| self.opened()));
        let opened = opened.unwrap_or_else(|_| Err(damaged(&self.path, "its library panicked over it")))?;
        let (found, acknowledged) = (opened.tail()?, self.acknowledged.read()?);
        if found < acknowledged {
            let missing = acknowledged - found;
            return Err(damaged(
                &self.path,
                format_args!("the last {missing} groups of what was made durable are missing"),
            ));
        }
        Ok(opened)
    }

    /// Refuses a folder in which a space is missing that was there when somebody was told of anything: the library would
    /// begin it anew in silence.
    fn check_spaces(&self) -> Result<(), DiskError> {
        if self.format != Some(FORMAT) || self.acknowledged.read()? == 0 {
            return Ok(());
        }
        let spaces = match fs::read_dir(self.store().join("keyspaces")) {
            Ok(entries) => entries.flatten().filter(|entry| entry.path().join("current").exists()).count(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error(&self.path)(error)),
        };
        // One is the library's own.
        let missing = (Space::ALL.len() + 1).saturating_sub(spaces);
        if missing > 0 {
            return Err(damaged(&self.path, format_args!("{missing} of its spaces are missing")));
        }
        Ok(())
    }

    fn opened(&self) -> Result<Opened, DiskError> {
        let failed = |error| library_error(&self.path, &error);
        let database = Database::builder(self.store())
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()
            .map_err(failed)?;
        let mut spaces = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE)
                    .manual_journal_persist(true)
                    // Nobody asks for a single record.
                    .filter_policy(FilterPolicy::disabled())
            };
            spaces.push(database.keyspace(space.as_str(), options).map_err(failed)?);
        }
        // The library's own lock tells whether its files are there: it has it open as long as we do.
        let lock = self.store().join("lock");
        let file = File::open(&lock).map_err(io_error(&lock))?;
        let held = [self.lock.clone(), Held::of(lock, file)?];
        Ok(Opened { database, spaces, folder: self.path.clone(), held, acknowledged: self.acknowledged.clone() })
    }
}

/// A place that is taken when it is opened, and again when its disk was gone and is back.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    folder: Option<Folder>,
    /// It was there before: a folder in its place that is empty is another one, such as the place of a disk that is gone.
    known: bool,
}

impl Place {
    /// The folder at this path.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, folder: None, known: false }
    }
}

impl Place {
    /// Opens it and keeps others out for as long as it is open.
    pub(super) fn open_alone(self) -> Result<Box<dyn Disk>, DiskError> {
        let folder = Folder::take(&self.path)?;
        let disk = folder.open()?;
        Ok(Box::new(Alone { disk, _folder: folder }))
    }
}

/// An open folder that nobody opens again.
struct Alone {
    disk: Box<dyn Disk>,
    _folder: Folder,
}

impl Disk for Alone {
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError> {
        self.disk.read(take)
    }

    fn write(&mut self, group: &Group) -> Result<(), DiskError> {
        self.disk.write(group)
    }

    fn records(&self) -> Records {
        self.disk.records()
    }
}

impl Medium for Place {
    fn open(&mut self) -> Result<Box<dyn Disk>, DiskError> {
        // What was open may belong to a disk that is there no more.
        self.folder = None;
        if self.known && !self.path.join("format").exists() {
            let path = self.path.display();
            return Err(DiskError::Refused(format!("{path}: the store is not there any more; {REMEDY}")));
        }
        let folder = self.folder.insert(Folder::take(&self.path)?);
        let disk = folder.open()?;
        self.known = true;
        if folder.format.is_none() {
            let path = path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
            tracing::info!(path = %path.display(), "a new store was begun; nothing is known of any payment");
        }
        Ok(disk)
    }
}

impl Folder {
    fn open(&self) -> Result<Box<dyn Disk>, DiskError> {
        self.copy_journals().map_err(io_error(&self.path))?;
        match self.open_whole() {
            Ok(opened) => {
                self.let_go().map_err(io_error(&self.path))?;
                if self.format.is_some_and(|found| found != FORMAT) {
                    // Before anything is written in it: an earlier program would take the new for damaged.
                    self.write_format()?;
                }
                Ok(Box::new(opened))
            }
            Err(error) => {
                self.put_back().map_err(io_error(&self.path))?;
                Err(error)
            }
        }
    }
}

/// An open folder.
struct Opened {
    database: Database,
    spaces: Vec<Keyspace>,
    folder: PathBuf,
    /// What tells that the folder and the records in it are those that we write to.
    held: [Held; 2],
    acknowledged: Acknowledged,
}

impl Opened {
    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// The number of the last group that is here.
    fn tail(&self) -> Result<u64, DiskError> {
        let tail = self.space(Space::Tail).get(TAIL).map_err(|error| self.error(&error))?;
        let Some(tail) = tail else { return Ok(0) };
        Ok(record::read_tail(&tail)?.group)
    }

    fn error(&self, error: &fjall::Error) -> DiskError {
        library_error(&self.folder, error)
    }
}

impl Disk for Opened {
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError> {
        for space in Space::ALL {
            for record in self.space(space).iter() {
                let (key, value) = record.into_inner().map_err(|error| self.error(&error))?;
                take(space, &key, &value)
                    .map_err(|error| damaged(&self.folder, format_args!("{error}, though its checksum is right")))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, group: &Group) -> Result<(), DiskError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (space, key, value) in group.records() {
            match value {
                Some(value) => batch.insert(self.space(space), key, value),
                None => batch.remove(self.space(space), key),
            }
        }
        let committed = batch.commit();
        // A folder that was removed or moved away can be written all the same, and nobody would ever find that. Where it
        // could not be, this is why.
        self.held.iter().try_for_each(|held| held.is_there(&self.folder))?;
        committed.map_err(|error| self.error(&error))?;
        self.acknowledged.write(group.number)
    }

    fn records(&self) -> Records {
        let (snapshot, spaces, folder) = (self.database.snapshot(), self.spaces.clone(), self.folder.clone());
        Box::new(Space::ALL.into_iter().flat_map(move |space| {
            let folder = folder.clone();
            snapshot.iter(&spaces[space as usize]).map(move |record| {
                let (key, value) = record
                    .into_inner()
                    .map_err(|error| DiskError::Refused(format!("{}: {error}", folder.display())))?;
                Ok((space, key.to_vec(), value.to_vec()))
            })
        }))
    }
}

/// A file that we have open, and that is the one at its path as long as nobody takes the folder away.
#[derive(Clone, Debug)]
struct Held {
    path: PathBuf,
    /// Its device and number there, which nothing else gets as long as it is open.
    id: (u64, u64),
    _file: Arc<File>,
}

impl Held {
    fn of(path: PathBuf, file: File) -> Result<Self, DiskError> {
        let found = file.metadata().map_err(io_error(&path))?;
        Ok(Self { path, id: (found.dev(), found.ino()), _file: Arc::new(file) })
    }

    /// Fails where another is in its place, or none.
    fn is_there(&self, folder: &Path) -> Result<(), DiskError> {
        let what = match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.id => return Ok(()),
            Ok(_) => "was replaced by another".to_owned(),
            Err(error) => format!("is gone ({error})"),
        };
        let (folder, file) = (folder.display(), self.path.display());
        Err(DiskError::Refused(format!(
            "the store in {folder} was taken away while the gate runs: {file} {what}; {REMEDY}"
        )))
    }
}

/// What to do about a folder that went while the gate runs.
const REMEDY: &str = "put back what was there and the gate goes on by itself; or stop the gate, put a backup in its place, \
                      and start it. If it is started with nothing there it knows nothing, and payments that were delivered \
                      before may be delivered again";

/// The number of the last group that was told to be durable: written after it was made so.
#[derive(Clone, Debug)]
struct Acknowledged {
    path: PathBuf,
    file: Arc<File>,
}

impl Acknowledged {
    fn write(&self, group: u64) -> Result<(), DiskError> {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&group.to_be_bytes());
        both[8..].copy_from_slice(&(!group).to_be_bytes());
        self.file.write_all_at(&both, 0).map_err(io_error(&self.path))
    }

    /// 0 where it is not known, as after a power cut it may be.
    fn read(&self) -> Result<u64, DiskError> {
        let mut both = [0; 16];
        match self.file.read_exact_at(&mut both, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => read.map_err(io_error(&self.path))?,
        }
        let [number, check] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&both[at..at + 8]);
            u64::from_be_bytes(half)
        });
        Ok(if number == !check { number } else { 0 })
    }
}

fn damaged(folder: &Path, what: impl std::fmt::Display) -> DiskError {
    DiskError::Damaged(format!(
        "the store in {} is damaged: {what}. Put a backup in its place; or move it away to begin with nothing known, \
         and payments that were delivered before may be delivered again",
        folder.display()
    ))
}

/// What the library says, as what it means: a disk that fails, or what can't be read.
fn library_error(folder: &Path, error: &fjall::Error) -> DiskError {
    let path = folder.display();
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) if !is_of_damage(io) => {
            DiskError::Refused(format!("{path}: {io}"))
        }
        fjall::Error::Poisoned => DiskError::Refused(format!("{path}: an earlier write failed")),
        fjall::Error::Locked => DiskError::Refused(format!("{path} is in use")),
        other => damaged(folder, other),
    }
}

/// Whether a file is missing, or there, against what others say, or is not what it should be: who reads zeroes as a place
/// looks where nothing can be.
fn is_of_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(error.kind(), AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof)
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.display().to_string();
    move |error| DiskError::Refused(format!("{path}: {error}"))
}

/// The same of what is made first, with what to do where that is not allowed.
fn not_ours(path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.display().to_string();
    move |error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                "; the gate has to have a folder that it may write to"
            }
            _ => "",
        };
        DiskError::Refused(format!("{path}: {error}{advice}"))
    }
}

/// So much of a journal is in memory at a time.
const CHUNK: usize = 1 << 16;

/// Where what was written into a journal ends; what follows is room that was set aside for it.
fn written_end(journal: &File) -> io::Result<u64> {
    let (zeroes, mut chunk, mut end) = (vec![0; CHUNK], vec![0; CHUNK], journal.metadata()?.len());
    while end > 0 {
        let start = (end - 1) / CHUNK as u64 * CHUNK as u64;
        let read = &mut chunk[..(end - start) as usize];
        journal.read_exact_at(read, start)?;
        // Compared as a whole first, for most of it is empty.
        if *read != zeroes[..read.len()] {
            return Ok(start + read.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1));
        }
        end = start;
    }
    Ok(0)
}

/// Copies a journal up to there, byte by byte: whoever leaves it to the system may get the same pages once more.
fn copy_anew(journal: &File, end: u64, into: &Path) -> io::Result<()> {
    let (mut copy, mut chunk, mut at) = (File::create(into)?, vec![0; CHUNK], 0);
    while at < end {
        let read = &mut chunk[..(end - at).min(CHUNK as u64) as usize];
        journal.read_exact_at(read, at)?;
        copy.write_all(read)?;
        at += read.len() as u64;
    }
    copy.sync_all()
}

/// Writes a file anew; it is on the disk when this returns, though its name may not be.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_journal_is_copied_up_to_the_last_byte_that_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, copy) = (directory.path().join("0.jnl"), directory.path().join("copy"));
        let chunk = CHUNK as u64;
        for last in [None, Some(0), Some(9), Some(chunk - 1), Some(chunk), Some(3 * chunk - 1), Some(3 * chunk + 5)] {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&journal).unwrap();
            file.set_len(3 * chunk + 6).unwrap();
            last.into_iter().for_each(|last| file.write_all_at(&[7], last).unwrap());
            let end = written_end(&file).unwrap();
            assert_eq!(end, last.map_or(0, |last| last + 1));
            copy_anew(&file, end, &copy).unwrap();
            assert!(fs::read(&copy).unwrap() == fs::read(&journal).unwrap()[..end as usize], "up to {end}");
        }
    }

    /// The bytes that journals take of the disk.
    fn journals(store: &Path) -> u64 {
        let files = fs::read_dir(store).unwrap().map(|entry| entry.unwrap());
        let journals = files.filter(|entry| entry.path().extension().is_some_and(|end| end == "jnl"));
        // One may go between the two looks.
        journals.filter_map(|entry| entry.metadata().ok()).map(|known| known.blocks() * 512).sum()
    }

    #[test]
    fn journals_do_not_grow_though_some_spaces_hardly_do() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Place::at(directory.path().to_owned()).open_alone().unwrap();
        let (megabyte, mut written) = (vec![7; 1 << 20], 0);
        for number in 1..=224 {
            let mut group = Group::new(number);
            group.put(Space::Deliveries, &record::number_key(number % 8), |into| into.extend_from_slice(&megabyte));
            let tail = record::Tail { group: number, ..record::Tail::default() };
            group.put(Space::Tail, TAIL, |into| record::write_tail(tail, into));
            disk.write(&group).unwrap();
            written += group.size() as u64;
        }
        let (store, began) = (directory.path().join("store"), tokio::time::Instant::now());
        // What is sealed is sorted and goes behind the writer's back.
        while journals(&store) > 3 * JOURNALS && began.elapsed() < std::time::Duration::from_secs(30) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(journals(&store) <= 3 * JOURNALS, "{} of {written} written", journals(&store));
    }
}
