//! Files that are looked at again and again, so that a change is noticed within a moment of its end.
//!
//! Looking goes by what a file is, and not by what the kernel tells of it: a rename, a swapped link, a mounted volume and
//! a file that did not exist before are all the same change. A file is said to have changed when it was found the same at
//! two looks in a row, so that nobody reads one that is half written.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::digest::{Context, SHA256, digest};

/// How often files are looked at where nothing else is said.
pub const EVERY: Duration = Duration::from_secs(1);

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A SHA-256 of its bytes.
    Bytes([u8; 32]),
    /// It cannot be read, or is not there.
    Unreadable(io::ErrorKind),
    /// A pipe, a folder, a device: nothing that can be read twice.
    NoFile,
}

impl Content {
    /// What a file with these bytes would be found to be.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self::Bytes(sha256)
    }

    /// What this file is; whatever reading it would wait for, this does not.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                read(path).map_or_else(|error| Self::Unreadable(error.kind()), Self::Bytes)
            }
            Ok(_) => Self::NoFile,
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

fn read(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let (mut context, mut buffer) = (Context::new(&SHA256), [0; 8 * 1024]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => context.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(sha256)
}

/// What tells without reading that a file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Files, and what each of them is known to be.
#[derive(Clone, Debug)]
pub struct Watch {
    files: Vec<Watched>,
    every: Duration,
}

#[derive(Clone, Debug)]
struct Watched {
    path: PathBuf,
    /// What was last told of it.
    known: Content,
    /// What the last look found, and whether the one before had found the same.
    found: Content,
    still: bool,
    stamp: Option<Stamp>,
}

impl Watch {
    /// Watches these files from what they are now.
    pub fn from_now(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::of(paths.into_iter().map(|path| {
            let content = Content::at(&path);
            (path, content)
        }))
    }

    /// Watches these files from what somebody has read in them.
    pub fn of(files: impl IntoIterator<Item = (PathBuf, Content)>) -> Self {
        let watched = |(path, known)| Watched { path, known, found: known, still: false, stamp: None };
        Self { files: files.into_iter().map(watched).collect(), every: EVERY }
    }

    /// Looks so often, instead of each second.
    #[must_use]
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Looks at every file once, and says which have changed since they were last spoken of and stand still again.
    ///
    /// It reads files, and so is nothing for a task: see [`Self::changed`].
    pub fn look(&mut self) -> Vec<PathBuf> {
        self.files.iter_mut().filter_map(|watched| watched.look().then(|| watched.path.clone())).collect()
    }

    /// Waits until some have changed, and says which. Nothing is missed when the future is dropped and made anew.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            tokio::time::sleep(self.every).await;
            let mut looking = self.clone();
            let looked = tokio::task::spawn_blocking(move || (looking.look(), looking)).await;
            // A look that panicked, or that came when all was ending, saw nothing.
            let Ok((changed, watch)) = looked else { continue };
            *self = watch;
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// Whether the last look found every file as the one before had.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.files.iter().all(|watched| watched.still)
    }

    /// What this file was last said to be, if it is among these.
    #[must_use]
    pub fn known(&self, path: &Path) -> Option<Content> {
        self.files.iter().find(|watched| watched.path == path).map(|watched| watched.known)
    }
}

impl Watched {
    /// Whether it has changed, and for the first time stands still.
    fn look(&mut self) -> bool {
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        // Two changes in one tick of the kernel's clock have one stamp, so that the second look reads in any case.
        if self.still && stamp == self.stamp {
            return false;
        }
        let content = Content::at(&self.path);
        self.still = content == self.found && stamp == self.stamp;
        (self.found, self.stamp) = (content, stamp);
        // What cannot be read twice is nothing that changes.
        let changed = self.still && content != self.known && content != Content::NoFile;
        if changed {
            self.known = content;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn folder_with(text: &str) -> (TempDir, PathBuf, Watch) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, text).unwrap();
        let watch = Watch::from_now([path.clone()]);
        (folder, path, watch)
    }

    /// Whether each of so many looks finds a change.
    fn looks(watch: &mut Watch, times: usize) -> Vec<bool> {
        (0..times).map(|_| !watch.look().is_empty()).collect()
    }

    #[test]
    fn what_stays_as_it_is_or_is_only_touched_has_not_changed() {
        let (_folder, path, mut watch) = folder_with("one");
        assert_eq!(looks(&mut watch, 3), [false; 3]);
        fs::write(&path, "one").unwrap();
        assert_eq!(looks(&mut watch, 3), [false; 3]);
    }

    #[test]
    fn a_change_is_told_once_when_it_was_found_the_same_twice() {
        let (_folder, path, mut watch) = folder_with("one");
        fs::write(&path, "two").unwrap();
        assert_eq!(looks(&mut watch, 4), [false, true, false, false]);
        fs::write(&path, "six").unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }

    #[test]
    fn a_file_that_is_being_written_is_not_spoken_of() {
        let (_folder, path, mut watch) = folder_with("one");
        for part in ["", "t", "tw", "two"] {
            fs::write(&path, part).unwrap();
            assert_eq!(looks(&mut watch, 1), [false], "{part}");
        }
        assert_eq!(looks(&mut watch, 2), [true, false]);
    }

    #[test]
    fn a_file_that_came_back_to_what_it_was_has_not_changed() {
        let (_folder, path, mut watch) = folder_with("one");
        fs::write(&path, "tw").unwrap();
        assert_eq!(looks(&mut watch, 1), [false]);
        fs::write(&path, "one").unwrap();
        assert_eq!(looks(&mut watch, 3), [false; 3]);
    }

    #[test]
    fn a_rename_over_it_and_a_swapped_link_are_changes() {
        let (folder, path, mut watch) = folder_with("one");
        let other = folder.path().join("other");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);

        let (a, b, link) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("link"));
        fs::write(&a, "one").unwrap();
        fs::write(&b, "two").unwrap();
        symlink(&a, &link).unwrap();
        let mut watch = Watch::from_now([link.clone()]);
        fs::remove_file(&link).unwrap();
        symlink(&b, &link).unwrap();
        assert_eq!(watch.look(), Vec::<PathBuf>::new());
        assert_eq!(watch.look(), [link]);
    }

    #[test]
    fn a_file_that_goes_and_one_that_comes_have_changed() {
        let (_folder, path, mut watch) = folder_with("one");
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
        assert_eq!(watch.known(&path), Some(Content::Unreadable(io::ErrorKind::NotFound)));
        fs::write(&path, "one").unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
        assert_eq!(watch.known(&path), Some(Content::of(b"one")));
    }

    #[test]
    fn what_was_read_before_it_changed_is_seen_to_have_changed() {
        let (_folder, path, _) = folder_with("two");
        let mut watch = Watch::of([(path.clone(), Content::of(b"one"))]);
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }

    #[test]
    fn a_folder_and_a_pipe_are_not_read_and_never_change() {
        let (folder, path, mut watch) = folder_with("");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(looks(&mut watch, 3), [false; 3]);
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(Content::at(&pipe), Content::NoFile);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told() {
        let (_folder, path, mut watch) = folder_with("one");
        fs::write(&path, "two").unwrap();
        assert_eq!(watch.changed().await, [path]);
    }
}
