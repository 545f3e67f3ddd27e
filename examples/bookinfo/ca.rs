//! A small CA: one root for the life of the demo, one short-lived certificate per account, in files.
//!
//! Certificate and key are two files, replaced one after the other as any agent would do it: readers must cope with the
//! moment in between, and the mesh's file watcher does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

use crate::Failure;
use crate::plan::spiffe;

/// The CA and the folder that it writes to.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    serial: AtomicU64,
}

/// Every account that gets a certificate. The intruder has one too: policy, not TLS, must refuse it.
pub(crate) const ACCOUNTS: [&str; 6] =
    ["productpage", "details", "reviews", "ratings", crate::plan::TOUR, "intruder"];

// === impl Ca ===

impl Ca {
    /// A new root, and a first certificate for every account.
    pub(crate) fn new(folder: PathBuf) -> Result<Self, Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "bookinfo CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?;
        std::fs::create_dir_all(&folder)?;
        replace(&folder.join("ca.pem"), &root.pem())?;
        let ca = Self { issuer: Issuer::new(params, key), folder, serial: AtomicU64::new(1) };
        ca.rotate()?;
        Ok(ca)
    }

    /// New certificates and keys for every account. Returns the serial number that all of them carry.
    pub(crate) fn rotate(&self) -> Result<u64, Failure> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        for account in ACCOUNTS {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.serial_number = Some(SerialNumber::from(serial));
            params.subject_alt_names = vec![SanType::URI(spiffe(account).try_into()?)];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let certificate = params.signed_by(&key, &self.issuer)?;
            let folder = self.folder.join(account);
            std::fs::create_dir_all(&folder)?;
            replace(&folder.join("cert.pem"), &certificate.pem())?;
            replace(&folder.join("key.pem"), &key.serialize_pem())?;
        }
        Ok(serial)
    }

    /// The folder of the root and of each account's files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Writes beside, then renames: a reader sees the old file or the new one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file)
}
