//! The bytes of a file, with its path in every error.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::load::{FileProblem, InvalidFile, Loaded, load as load_text};
use crate::resource::Rules;
use crate::resource_json::{Format, MAX_TEXT_BYTES};

/// Reads a whole file, up to the limit of a text and one byte more.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, InvalidFile> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| InvalidFile::unread(e).of_file(path))
}

/// Loads the bytes of a file.
pub(super) fn load(path: &Path, bytes: &[u8], rules: &Rules) -> Result<Loaded, InvalidFile> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidFile::from(FileProblem::NotUtf8));
    text.and_then(|text| load_text(text, Format::of_path(path), rules)).map_err(|e| e.of_file(path))
}

/// Reads and loads a file. Which certificate providers there are is the application's to say: any that is named counts as
/// one.
#[cfg(feature = "control-plane")]
pub(crate) fn of_any_application(path: &Path) -> Result<Loaded, InvalidFile> {
    let bytes = read(path)?;
    let mut rules = Rules::default();
    loop {
        let loaded = load(path, &bytes, &rules);
        let unknown = loaded.as_ref().err().into_iter().flat_map(InvalidFile::unknown_providers);
        let mut more = false;
        unknown.for_each(|name| more |= rules.certificate_providers.insert(name.into()));
        if !more {
            return loaded;
        }
    }
}
