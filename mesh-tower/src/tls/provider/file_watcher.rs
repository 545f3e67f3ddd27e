//! The `file_watcher` provider of gRFC A29.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::CryptoProvider;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::{CertificateProvider, Identity, NoMaterial, Roots};
use crate::tls::TlsError;
use crate::transport::task::Task;

/// How often something that was never loaded is tried.
const FIRST_LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Which files to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileWatcherConfig {
    /// PEM chain and PEM key. None: this provider has no certificate.
    pub identity: Option<IdentityFiles>,
    /// PEM roots. None: this provider has no roots.
    pub ca_certificate_file: Option<PathBuf>,
    /// How often the files are read. Default [`FileWatcherConfig::REFRESH_INTERVAL`].
    pub refresh_interval: Duration,
}

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityFiles {
    /// PEM chain, leaf first.
    pub certificate_file: PathBuf,
    /// PEM key of the leaf.
    pub private_key_file: PathBuf,
}

/// A provider of certificate, key and roots in files that somebody else renews (`file_watcher` of gRFC A29). Its task
/// ends with it.
///
/// The files are read again at each `refresh_interval` (default 600 s; each second at most while something has
/// never been loaded). Certificate and key are a pair: it replaces the old pair only when both were read, belong
/// together, and did not change while they were read. A failed reload keeps what was loaded before and is logged
/// once, until the failure changes or ends.
#[derive(Debug)]
pub struct FileWatcher {
    files: Arc<Files>,
    _task: Task,
}

#[derive(Debug)]
struct Files {
    config: FileWatcherConfig,
    crypto: Arc<CryptoProvider>,
    identity: Loaded<Identity>,
    roots: Loaded<Roots>,
}

/// One thing that is loaded from files.
#[derive(Debug)]
struct Loaded<T> {
    value: ArcSwapOption<T>,
    /// Why the last reload failed.
    error: ArcSwap<Option<Arc<str>>>,
}

/// What was read last, to see that nothing changed. Keys are in here: no `Debug`.
#[derive(Default)]
struct Seen {
    identity: Option<Pair>,
    roots: Option<Vec<u8>>,
}

#[derive(PartialEq)]
struct Pair {
    chain: Vec<u8>,
    key: Vec<u8>,
}

// === impl FileWatcherConfig ===

impl FileWatcherConfig {
    /// Default of `refresh_interval`.
    pub const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

    /// These files, read again at the default interval.
    #[must_use]
    pub const fn new(identity: Option<IdentityFiles>, ca_certificate_file: Option<PathBuf>) -> Self {
        Self { identity, ca_certificate_file, refresh_interval: Self::REFRESH_INTERVAL }
    }
}

// === impl IdentityFiles ===

impl IdentityFiles {
    /// A PEM chain, leaf first, and the PEM key of the leaf.
    pub fn new(certificate_file: impl Into<PathBuf>, private_key_file: impl Into<PathBuf>) -> Self {
        Self { certificate_file: certificate_file.into(), private_key_file: private_key_file.into() }
    }
}

// === impl FileWatcher ===

impl FileWatcher {
    /// Reads the files once, so that the first handshake finds them, and watches them on `runtime`.
    pub fn start(config: FileWatcherConfig, crypto: Arc<CryptoProvider>, runtime: &Handle) -> Arc<Self> {
        let files = Arc::new(Files { config, crypto, identity: Loaded::new(), roots: Loaded::new() });
        let mut seen = Seen::default();
        files.refresh(&mut seen);
        let span = tracing::info_span!(parent: None, "mesh.file_watcher");
        let task = Task::spawn(runtime, span, watch(files.clone(), seen));
        Arc::new(Self { files, _task: task })
    }
}

impl CertificateProvider for FileWatcher {
    fn identity(&self, _certificate: &str) -> Result<Arc<Identity>, NoMaterial> {
        match self.files.config.identity {
            Some(_) => self.files.identity.get(),
            None => Err(NoMaterial::new("it has no certificate_file")),
        }
    }

    fn roots(&self, _certificate: &str) -> Result<Arc<Roots>, NoMaterial> {
        match self.files.config.ca_certificate_file {
            Some(_) => self.files.roots.get(),
            None => Err(NoMaterial::new("it has no ca_certificate_file")),
        }
    }
}

async fn watch(files: Arc<Files>, mut seen: Seen) {
    loop {
        sleep_until(Instant::now() + files.next_interval()).await;
        let files = files.clone();
        // Small files, but a disk may hang: never on a thread that serves requests.
        let read = tokio::task::spawn_blocking(move || {
            files.refresh(&mut seen);
            seen
        });
        match read.await {
            Ok(kept) => seen = kept,
            Err(_) => return,
        }
    }
}

// === impl Files ===

impl Files {
    fn next_interval(&self) -> Duration {
        let waiting = (self.config.identity.is_some() && self.identity.value.load().is_none())
            || (self.config.ca_certificate_file.is_some() && self.roots.value.load().is_none());
        if waiting {
            self.config.refresh_interval.min(FIRST_LOAD_INTERVAL)
        } else {
            self.config.refresh_interval
        }
    }

    fn refresh(&self, seen: &mut Seen) {
        if let Some(files) = &self.config.identity {
            self.identity.update("certificate", self.read_identity(files, &mut seen.identity));
        }
        if let Some(path) = &self.config.ca_certificate_file {
            self.roots.update("roots", read_roots(path, &mut seen.roots));
        }
    }

    fn read_identity(
        &self,
        files: &IdentityFiles,
        seen: &mut Option<Pair>,
    ) -> Result<Option<Identity>, TlsError> {
        let read_pair = || {
            let (chain, key) = (read(&files.certificate_file)?, read(&files.private_key_file)?);
            Ok::<_, TlsError>(Pair { chain, key })
        };
        let pair = read_pair()?;
        if seen.as_ref() == Some(&pair) {
            return Ok(None);
        }
        if read_pair()? != pair {
            return Err(TlsError::InvalidMaterial("the files changed while they were read".into()));
        }
        let identity = Identity::from_pem(&pair.chain, &pair.key, &self.crypto)?;
        *seen = Some(pair);
        Ok(Some(identity))
    }
}

fn read_roots(path: &Path, seen: &mut Option<Vec<u8>>) -> Result<Option<Roots>, TlsError> {
    let pem = read(path)?;
    if seen.as_ref() == Some(&pem) {
        return Ok(None);
    }
    let roots = Roots::from_pem(&pem)?;
    *seen = Some(pem);
    Ok(Some(roots))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| TlsError::InvalidMaterial(format!("{}: {e}", path.display()).into()))
}

// === impl Loaded ===

impl<T> Loaded<T> {
    fn new() -> Self {
        Self { value: ArcSwapOption::empty(), error: ArcSwap::new(Arc::new(None)) }
    }

    fn get(&self) -> Result<Arc<T>, NoMaterial> {
        self.value.load_full().ok_or_else(|| {
            let error = self.error.load();
            NoMaterial::new(error.as_ref().clone().unwrap_or_else(|| "not loaded yet".into()))
        })
    }

    /// `Ok(None)` means unchanged.
    fn update(&self, what: &str, read: Result<Option<T>, TlsError>) {
        match read {
            Ok(changed) => {
                self.error.store(Arc::new(None));
                if let Some(value) = changed {
                    self.value.store(Some(Arc::new(value)));
                    tracing::info!("{what} loaded");
                }
            }
            Err(error) => {
                let text: Arc<str> = error.to_string().into();
                if self.error.load().as_deref() != Some(&*text) {
                    let kept = self.value.load().is_some();
                    tracing::warn!(error = %text, kept_previous = kept, "{what} cannot be loaded");
                    self.error.store(Arc::new(Some(text)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::tls::CryptoBackend;
    use crate::tls::testing::{Ca, Leaf, uri};

    struct Watched {
        dir: TempDir,
        ca: Ca,
        watcher: Arc<FileWatcher>,
    }

    impl Watched {
        /// A watcher with a refresh interval of one second, over these files.
        fn start(prepare: impl FnOnce(&TempDir, &Ca)) -> Self {
            let (dir, ca) = (TempDir::new().unwrap(), Ca::new());
            prepare(&dir, &ca);
            let config = FileWatcherConfig {
                identity: Some(IdentityFiles {
                    certificate_file: dir.path().join("cert.pem"),
                    private_key_file: dir.path().join("key.pem"),
                }),
                ca_certificate_file: Some(dir.path().join("ca.pem")),
                refresh_interval: Duration::from_secs(1),
            };
            let crypto = CryptoBackend::Auto.provider().unwrap();
            let watcher = FileWatcher::start(config, crypto, &Handle::current());
            Self { dir, ca, watcher }
        }

        async fn next_refresh(&self) {
            // The clock is paused: it moves when every task, the blocking one included, is at rest.
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
    }

    fn write(dir: &TempDir, leaf: &Leaf) {
        std::fs::write(dir.path().join("cert.pem"), &leaf.chain).unwrap();
        std::fs::write(dir.path().join("key.pem"), &leaf.key).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_pair_is_taken_at_the_next_refresh() {
        let watched = Watched::start(|dir, ca| {
            write(dir, &ca.leaf(&[uri("spiffe://td/old")]));
            std::fs::write(dir.path().join("ca.pem"), &ca.pem).unwrap();
        });
        let (old, roots) = (watched.watcher.identity("").unwrap(), watched.watcher.roots("").unwrap());
        watched.next_refresh().await;
        assert!(Arc::ptr_eq(&old, &watched.watcher.identity("").unwrap()), "unchanged files change nothing");

        let renewed = watched.ca.leaf(&[uri("spiffe://td/new")]);
        write(&watched.dir, &renewed);
        watched.next_refresh().await;
        let new = watched.watcher.identity("").unwrap();
        assert_eq!(new.chain(), renewed.identity().chain());
        assert!(Arc::ptr_eq(&roots, &watched.watcher.roots("").unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_written_pair_keeps_the_old_one() {
        let watched = Watched::start(|dir, ca| write(dir, &ca.leaf(&[uri("spiffe://td/old")])));
        let old = watched.watcher.identity("").unwrap();
        let renewed = watched.ca.leaf(&[uri("spiffe://td/new")]);

        std::fs::write(watched.dir.path().join("cert.pem"), &renewed.chain).unwrap();
        watched.next_refresh().await;
        assert!(Arc::ptr_eq(&old, &watched.watcher.identity("").unwrap()), "new certificate, old key");

        std::fs::write(watched.dir.path().join("key.pem"), &renewed.key[..40]).unwrap();
        watched.next_refresh().await;
        assert!(Arc::ptr_eq(&old, &watched.watcher.identity("").unwrap()), "half a key");

        std::fs::remove_file(watched.dir.path().join("key.pem")).unwrap();
        watched.next_refresh().await;
        assert!(Arc::ptr_eq(&old, &watched.watcher.identity("").unwrap()), "no key");

        write(&watched.dir, &renewed);
        watched.next_refresh().await;
        assert_eq!(watched.watcher.identity("").unwrap().chain(), renewed.identity().chain());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_loaded_is_an_error_until_it_appears() {
        let watched = Watched::start(|_, _| {});
        let error = watched.watcher.identity("").unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        assert!(watched.watcher.roots("").unwrap_err().to_string().contains("ca.pem"));
        write(&watched.dir, &watched.ca.leaf(&[uri("spiffe://td/a")]));
        std::fs::write(watched.dir.path().join("ca.pem"), &watched.ca.pem).unwrap();
        watched.next_refresh().await;
        assert!(watched.watcher.identity("").is_ok() && watched.watcher.roots("").is_ok());
    }

    #[tokio::test]
    async fn the_task_ends_with_the_provider() {
        let watched = Watched::start(|_, _| {});
        let files = Arc::downgrade(&watched.watcher.files);
        drop(watched);
        while files.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
