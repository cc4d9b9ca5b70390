//! A directory of manifests (or one file), read and watched.
//!
//! Read are `*.yaml`, `*.yml` and `*.json`, recursively; names that begin with a dot are passed over, so that the `..data`
//! links of a mounted ConfigMap are swapped unseen. A file that can't be read keeps what it said when it last could.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::index::cluster::Cluster;
use crate::resources::object::Located;
use crate::resources::report::Report;
use crate::source::manifest::{self, ManifestError};

/// Longest file that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most files that are read.
pub const MAX_FILES: usize = 10_000;
/// Most bytes that are read of all files.
pub const MAX_BYTES: u64 = 256 << 20;
/// Deepest directory that is looked into.
pub const MAX_DEPTH: usize = 32;

/// How long nothing must have happened before files are read again: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// Files are read again at the latest so long after the first event of a series that does not end.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);
/// Files are read again this often without any event: not every file system reports them.
const REREAD: Duration = Duration::from_secs(30);

/// A directory of manifests, followed.
#[derive(Debug)]
pub struct Directory {
    files: Files,
    cluster: watch::Sender<Arc<Cluster>>,
}

/// What was read of the files, and what each said when it was last good.
#[derive(Debug)]
struct Files {
    root: PathBuf,
    known: BTreeMap<Arc<Path>, File>,
    reports: Vec<Report>,
    /// Some file was being written: look again soon.
    unsettled: bool,
}

/// A file.
#[derive(Debug, Default)]
struct File {
    /// Of its contents, to see whether they changed.
    hash: u64,
    /// What it said when it was last good.
    objects: Vec<Located>,
    /// Why it can't be read now.
    broken: Option<Report>,
    /// Since when it has been seen while it was being written.
    unsettled: Option<Instant>,
}

/// Whether files that are being written are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    None,
    UntilSettled,
}

impl Directory {
    /// Reads a directory or a file once. It is an error if there is none; what is wrong inside is reported in the
    /// cluster.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::metadata(root)?;
        let mut files = Files {
            root: root.into(),
            known: BTreeMap::new(),
            reports: Vec::new(),
            unsettled: false,
        };
        files.read(Patience::None);
        let (cluster, _) = watch::channel(Arc::new(files.cluster()));
        log_new(&[], &cluster.borrow().reports);
        Ok(Self { files, cluster })
    }

    /// The cluster as last read, and as it changes while [`run`](Self::run) runs.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.cluster.subscribe()
    }

    /// Reads again whenever something changes, for ever.
    pub async fn run(mut self) {
        // One waiting event says all that there is to say: "look again".
        let (changed, mut changes) = mpsc::channel(1);
        let _watcher = watch_files(&self.files.root, changed)
            .inspect_err(|error| {
                tracing::warn!(%error, every = ?REREAD, "changes of manifests are seen only when they are read again");
            })
            .ok();
        loop {
            self = match tokio::task::spawn_blocking(move || self.refreshed()).await {
                Ok(directory) => directory,
                Err(error) => {
                    tracing::error!(%error, "manifests are not followed any more: restart the controller");
                    return;
                }
            };
            // Without a watcher the channel is closed, and only time passes.
            let wait = if self.files.unsettled { SETTLE } else { REREAD };
            match tokio::time::timeout(wait, changes.recv()).await {
                Ok(Some(())) => settle(&mut changes).await,
                Ok(None) => tokio::time::sleep(wait).await,
                Err(_elapsed) => {}
            }
        }
    }

    /// Reads again, and tells everybody if something changed.
    fn refreshed(mut self) -> Self {
        if self.files.read(Patience::UntilSettled) {
            let cluster = self.files.cluster();
            log_new(&self.cluster.borrow().reports, &cluster.reports);
            self.cluster.send_replace(Arc::new(cluster));
            tracing::info!(files = self.files.known.len(), "manifests read");
        }
        self
    }
}

/// Watches a directory, or the directory of a file: editors and links replace files rather than change them.
fn watch_files(root: &Path, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading makes events of its own.
        let read_only = event.is_ok_and(|event| event.kind.is_access());
        if !read_only {
            // A full channel says it already.
            let _ = changed.try_send(());
        }
    })?;
    if root.is_dir() {
        watcher.watch(root, RecursiveMode::Recursive)?;
    } else {
        let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
        watcher.watch(
            parent.unwrap_or_else(|| Path::new(".")),
            RecursiveMode::NonRecursive,
        )?;
    }
    Ok(watcher)
}

/// Waits until nothing has happened for a moment.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet = async { while let Ok(Some(())) = tokio::time::timeout(SETTLE, changes.recv()).await {} };
    // Elapsed: events have come all the time, and waiting longer would starve everybody.
    let _ = tokio::time::timeout(SETTLE_AT_MOST, quiet).await;
}

/// Logs what was not there before.
fn log_new(before: &[Report], now: &[Report]) {
    for report in now.iter().filter(|report| before.binary_search(report).is_err()) {
        tracing::warn!("{report}");
    }
}

impl Files {
    /// The cluster that the files describe now.
    fn cluster(&self) -> Cluster {
        let objects: Vec<_> = self
            .known
            .values()
            .flat_map(|file| file.objects.iter().cloned())
            .collect();
        let broken = self.known.values().filter_map(|file| file.broken.clone());
        Cluster::build(&objects, self.reports.iter().cloned().chain(broken).collect())
    }

    /// Reads all files. Whether anything changed since the last time.
    fn read(&mut self, patience: Patience) -> bool {
        let mut found = Found::default();
        found.walk(&self.root, 0);
        if let Some(report) = &found.unreadable_root {
            // The directory is gone for a moment, or for good: everybody keeps what they have.
            return self.replace_reports(vec![report.clone()]);
        }
        let mut changed = false;
        let mut left = MAX_BYTES;
        let mut known = BTreeMap::new();
        for path in found.files {
            let mut file = self.known.remove(&path).unwrap_or_default();
            if patience == Patience::None || file.is_settled(&path) {
                changed |= file.refresh(&path, &mut left);
            }
            known.insert(path, file);
        }
        self.unsettled = known.values().any(|file| file.unsettled.is_some());
        changed |= !self.known.is_empty();
        self.known = known;
        self.replace_reports(found.reports) || changed
    }

    fn replace_reports(&mut self, reports: Vec<Report>) -> bool {
        let changed = self.reports != reports;
        self.reports = reports;
        changed
    }
}

impl File {
    /// Whether nobody has written to the file for a moment: half a file can be a valid one. One that is written to
    /// all the time is read as it is.
    fn is_settled(&mut self, path: &Path) -> bool {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if age.is_none_or(|age| age >= SETTLE) {
            self.unsettled = None;
            return true;
        }
        self.unsettled.get_or_insert_with(Instant::now).elapsed() >= SETTLE_AT_MOST
    }

    /// Reads the file if its contents changed. Whether they did.
    fn refresh(&mut self, path: &Arc<Path>, left: &mut u64) -> bool {
        let text = match contents(path, left) {
            Ok(text) => text,
            Err(reason) => return self.breaks(Report::about_file(path, 0, self.kept(&reason))),
        };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        // A file that could not even be opened has no hash that says what was wrong with it.
        let same_text = hash == self.hash && self.broken.as_ref().is_none_or(|report| report.origin.line > 0);
        if same_text {
            return false;
        }
        self.hash = hash;
        // A panic of the parser must not end the following of all the other files.
        let read = std::panic::catch_unwind(|| manifest::read(path, &text)).unwrap_or_else(|_| {
            let reason = "the parser failed on this file: please report it".into();
            Err(ManifestError { line: 1, reason })
        });
        match read {
            Ok(objects) => {
                self.objects = objects;
                self.broken = None;
                true
            }
            Err(error) => self.breaks(Report::about_file(
                path,
                error.line.max(1),
                self.kept(&error.reason),
            )),
        }
    }

    fn kept(&self, reason: &str) -> String {
        let consequence = match self.objects.len() {
            0 => "nothing of this file is served".into(),
            count => format!("what it held before stays in force ({count} objects)"),
        };
        format!("{reason}; until it is corrected, {consequence}")
    }

    fn breaks(&mut self, report: Report) -> bool {
        let changed = self.broken.as_ref() != Some(&report);
        self.broken = Some(report);
        changed
    }
}

/// The text of a file, within the limits.
fn contents(path: &Path, left: &mut u64) -> Result<String, String> {
    let limit = MAX_FILE_BYTES.min(*left);
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > limit => Err(format!(
            "more than {MAX_FILE_BYTES} bytes here, or {MAX_BYTES} in all files: split or remove some"
        )),
        Ok(length) => {
            *left -= length as u64;
            Ok(text)
        }
        Err(error) => Err(format!("can't be read: {error}")),
    }
}

/// What a walk found.
#[derive(Debug, Default)]
struct Found {
    files: BTreeSet<Arc<Path>>,
    /// Directories that were looked into, without links: a circle of links has no end.
    visited: HashSet<PathBuf>,
    reports: Vec<Report>,
    unreadable_root: Option<Report>,
}

impl Found {
    /// Collects the files of a directory, or the file itself. Links are followed, down to [`MAX_DEPTH`].
    fn walk(&mut self, path: &Path, depth: usize) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.walk_directory(path, depth),
            Ok(metadata) if metadata.is_file() => {
                if depth == 0 || is_manifest(path) {
                    self.add(path);
                }
            }
            // Devices, sockets and pipes say nothing, and could block.
            Ok(_) => {}
            Err(error) => self.unreadable(path, depth, &error),
        }
    }

    fn walk_directory(&mut self, path: &Path, depth: usize) {
        if depth >= MAX_DEPTH {
            let reason = format!("deeper than {MAX_DEPTH} directories and passed over: move it up");
            return self.reports.push(Report::about_file(&path.into(), 0, reason));
        }
        let first_visit = match fs::canonicalize(path) {
            Ok(real) => self.visited.insert(real),
            Err(error) => return self.unreadable(path, depth, &error),
        };
        if !first_visit {
            return;
        }
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(path, depth, &error),
        };
        for entry in entries {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && self.files.len() < MAX_FILES {
                self.walk(&entry.path(), depth + 1);
            }
        }
    }

    fn add(&mut self, path: &Path) {
        self.files.insert(path.into());
        if self.files.len() == MAX_FILES {
            let reason = format!("more than {MAX_FILES} files: the rest is not read; join some");
            self.reports.push(Report::about_file(&path.into(), 0, reason));
        }
    }

    fn unreadable(&mut self, path: &Path, depth: usize, error: &io::Error) {
        let report = Report::about_file(&path.into(), 0, format!("can't be read: {error}"));
        if depth == 0 {
            self.unreadable_root = Some(report);
        } else if is_manifest(path) {
            // A link to nowhere, or a file without permission: it is known, and says that it is broken.
            self.add(path);
        } else if error.kind() != io::ErrorKind::NotFound {
            self.reports.push(report);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

#[cfg(test)]
mod tests;
