//! Certificates, keys and revocation lists in files: read in PEM or DER, made exclusively and for their owner alone.
//!
//! Messages begin as Flocker's do, since its users look for them. A file that is not what it should be is told apart
//! as far as it can be: empty, cut short, encrypted, the key where the certificate belongs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Larger than any certificate or key.
const MOST_BYTES: u64 = 64 * 1024;
/// Larger than a list of a million revocations.
const MOST_OF_A_LIST: u64 = 128 * 1024 * 1024;

/// What a file is read or written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Certificate,
    Key,
    RevocationList,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Certificate => "certificate",
            Kind::Key => "private key",
            Kind::RevocationList => "revocation list",
        }
    }

    fn opened(self) -> &'static str {
        match self {
            Kind::Certificate => "Certificate",
            Kind::Key => "Private key",
            Kind::RevocationList => "Revocation list",
        }
    }

    fn one(self) -> &'static str {
        match self {
            Kind::Certificate => "a certificate",
            Kind::Key => "a private key",
            Kind::RevocationList => "a revocation list",
        }
    }
}

/// One thing that a file holds.
#[derive(Debug)]
pub enum Item {
    Certificate(CertificateDer<'static>),
    Key(PrivateKeyDer<'static>),
    RevocationList(Vec<u8>),
}

impl Item {
    pub fn kind(&self) -> Kind {
        match self {
            Item::Certificate(_) => Kind::Certificate,
            Item::Key(_) => Kind::Key,
            Item::RevocationList(_) => Kind::RevocationList,
        }
    }
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("Unable to load certificate authority file. {} {}", reason(source), path.display())]
    NoAuthority { path: PathBuf, source: io::Error },
    #[error("{} file could not be opened. {} {}", kind.opened(), reason(source), path.display())]
    Open { kind: Kind, path: PathBuf, source: io::Error },
    #[error("Unable to write {} file. {} {}", kind.file(), reason(source), path.display())]
    Write { kind: Kind, path: PathBuf, source: io::Error },
    #[error("{} may be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    #[error("{} is larger than {most} bytes: this is not {}", path.display(), kind.one())]
    TooLarge { path: PathBuf, kind: Kind, most: u64 },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    #[error("{} holds no certificate, private key or revocation list, neither in PEM nor in DER", .0.display())]
    Nothing(PathBuf),
    #[error("{} holds {}, but {} belongs there", path.display(), found.one(), expected.one())]
    Swapped { path: PathBuf, found: Kind, expected: Kind },
    #[error("{} holds {count} certificates, but one belongs there", path.display())]
    Several { path: PathBuf, count: usize },
    #[error("{} is there already, from the last time that this was renewed", .0.display())]
    Kept(PathBuf),
    #[error("{} is encrypted, and encrypted keys are not supported", .0.display())]
    Encrypted(PathBuf),
}

impl FileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            FileError::NoAuthority { path, .. } => {
                let lost = if path.extension().is_some_and(|extension| extension == "key") {
                    "Its key stays with the administrator: run this where it is"
                } else {
                    "Please run `comity ca initialize NAME` to generate a new certificate authority"
                };
                Some(format!("{lost}, or name its folder with --inputpath."))
            }
            FileError::Write { path, source, .. } => match source.kind() {
                io::ErrorKind::AlreadyExists => Some(format!(
                    "Nothing was overwritten. Move {} away if it is not needed any more, or write elsewhere with --outputpath.",
                    path.display()
                )),
                io::ErrorKind::NotFound => Some("The folder must be there; mkdir makes it.".to_owned()),
                io::ErrorKind::PermissionDenied => Some("Who may write into that folder?".to_owned()),
                _ => None,
            },
            // The key comes first; it is its certificate that can be revoked.
            FileError::Kept(path) if path.to_string_lossy().ends_with(".key.old") => Some(format!(
                "Nothing was changed. Its certificate counts until its own end, or until `comity ca revoke {}`; then move both away.",
                path.with_extension("").with_extension("crt.old").display()
            )),
            FileError::Kept(path) => Some(format!(
                "Nothing was changed. It counts until its own end, or until `comity ca revoke {}`; then move it away.",
                path.display()
            )),
            FileError::Encrypted(path) => {
                let path = path.display();
                Some(format!(
                    "`(umask 077; openssl pkey -in {path} -out {path}.plain)` asks for its password and writes it as it is needed here."
                ))
            }
            FileError::Damaged { .. } | FileError::Empty(_) => {
                Some("Take it from where it was made, or from a backup.".to_owned())
            }
            _ => None,
        }
    }
}

/// The system's words, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Everything that a file holds, in its order, with its mode where a key is among it.
pub fn read(path: &Path, kind: Kind) -> Result<(Vec<Item>, u32), FileError> {
    let open = |source| FileError::Open { kind, path: path.to_owned(), source };
    // NONBLOCK, so that a FIFO of that name does not make us wait for a writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    if !metadata.is_file() {
        return Err(open(io::Error::other("It is not a regular file:")));
    }
    let most = if kind == Kind::RevocationList { MOST_OF_A_LIST } else { MOST_BYTES };
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    file.take(most + 1).read_to_end(&mut bytes).map_err(open)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLarge { path: path.to_owned(), kind, most });
    }
    let mode = metadata.permissions().mode() & 0o777;
    items(&bytes).map(|items| (items, mode)).map_err(|fault| fault.of(path))
}

/// The one certificate of a file.
pub fn certificate(path: &Path) -> Result<CertificateDer<'static>, FileError> {
    let (items, _) = read(path, Kind::Certificate)?;
    let found = items.first().map_or(Kind::Certificate, Item::kind);
    let mut certificates = items.into_iter().filter_map(|item| match item {
        Item::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let Some(first) = certificates.next() else {
        return Err(FileError::Swapped { path: path.to_owned(), found, expected: Kind::Certificate });
    };
    match certificates.count() {
        0 => Ok(first),
        more => Err(FileError::Several { path: path.to_owned(), count: more + 1 }),
    }
}

/// The key of a file that nobody but its owner may read.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let (items, mode) = read(path, Kind::Key)?;
    let found = items.first().map_or(Kind::Key, Item::kind);
    let key = items.into_iter().find_map(|item| match item {
        Item::Key(key) => Some(key),
        _ => None,
    });
    let Some(key) = key else {
        return Err(FileError::Swapped { path: path.to_owned(), found, expected: Kind::Key });
    };
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    Ok(key)
}

/// The DER of the list in a file; `None` if there is no such file.
pub fn revocation_list(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let items = match read(path, Kind::RevocationList) {
        Ok((items, _)) => items,
        Err(FileError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let expected = Kind::RevocationList;
    match items.into_iter().next() {
        Some(Item::RevocationList(der)) => Ok(Some(der)),
        Some(other) => Err(FileError::Swapped { path: path.to_owned(), found: other.kind(), expected }),
        None => Err(FileError::Nothing(path.to_owned())),
    }
}

/// What is wrong with a content, still without its path.
enum Fault {
    Empty,
    Encrypted,
    Nothing,
    Damaged(&'static str),
}

impl Fault {
    fn of(self, path: &Path) -> FileError {
        let path = path.to_owned();
        match self {
            Fault::Empty => FileError::Empty(path),
            Fault::Encrypted => FileError::Encrypted(path),
            Fault::Nothing => FileError::Nothing(path),
            Fault::Damaged(reason) => FileError::Damaged { path, reason },
        }
    }
}

/// What text in PEM or bytes in DER hold.
fn items(bytes: &[u8]) -> Result<Vec<Item>, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::Empty);
    }
    if bytes.first() == Some(&0x30) {
        return der(bytes).map(|item| vec![item]);
    }
    let holds = |mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    if holds("-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds("Proc-Type: 4,ENCRYPTED") {
        return Err(Fault::Encrypted);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| Fault::Damaged(pem_fault(&error)))?;
        found.extend(item(kind, der)?);
    }
    if found.is_empty() { Err(Fault::Nothing) } else { Ok(found) }
}

/// A section of PEM; `None` for what is put beside keys, such as the parameters of their curve.
fn item(kind: SectionKind, der: Vec<u8>) -> Result<Option<Item>, Fault> {
    Ok(Some(match kind {
        SectionKind::Certificate if is_certificate(&der) => Item::Certificate(der.into()),
        SectionKind::Certificate => {
            return Err(Fault::Damaged("what is between its marks is not a certificate"));
        }
        SectionKind::Crl if is_revocation_list(&der) => Item::RevocationList(der),
        SectionKind::Crl => return Err(Fault::Damaged("what is between its marks is not a revocation list")),
        SectionKind::PrivateKey => Item::Key(PrivateKeyDer::Pkcs8(der.into())),
        SectionKind::EcPrivateKey => Item::Key(PrivateKeyDer::Sec1(der.into())),
        SectionKind::RsaPrivateKey => Item::Key(PrivateKeyDer::Pkcs1(der.into())),
        _ => return Ok(None),
    }))
}

fn der(bytes: &[u8]) -> Result<Item, Fault> {
    if is_certificate(bytes) {
        return Ok(Item::Certificate(bytes.to_vec().into()));
    }
    if is_revocation_list(bytes) {
        return Ok(Item::RevocationList(bytes.to_vec()));
    }
    match PrivateKeyDer::try_from(bytes) {
        Ok(key) if rcgen::KeyPair::try_from(&key).is_ok() => Ok(Item::Key(key.clone_key())),
        _ => Err(Fault::Nothing),
    }
}

fn is_certificate(der: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(rest, _)| rest.is_empty())
}

fn is_revocation_list(der: &[u8]) -> bool {
    x509_parser::parse_x509_crl(der).is_ok_and(|(rest, _)| rest.is_empty())
}

fn pem_fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "its last line (-----END …-----) is missing, so it was cut short"
        }
        pem::Error::Base64Decode(_) => "what is between its marks is not base64",
        _ => "a line that begins or ends a section is not as PEM has it",
    }
}

/// Files that are made together: both or neither, and never over another.
#[derive(Debug, Default)]
pub struct NewFiles {
    made: Vec<(Kind, PathBuf, File)>,
}

impl NewFiles {
    /// Makes a file for its owner alone, empty as yet.
    pub fn make(&mut self, kind: Kind, path: &Path) -> Result<(), FileError> {
        let write = |source| FileError::Write { kind, path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
        // Whatever the umask took away.
        let whole = file.set_permissions(fs::Permissions::from_mode(0o600));
        self.made.push((kind, path.to_owned(), file));
        whole.map_err(write)
    }

    /// Fills them, in the order in which they were made, and keeps them.
    pub fn fill(mut self, contents: &[&str]) -> Result<Written, FileError> {
        for ((kind, path, file), content) in self.made.iter_mut().zip(contents) {
            file.write_all(content.as_bytes()).map_err(|source| FileError::Write {
                kind: *kind,
                path: path.clone(),
                source,
            })?;
        }
        Ok(Written(std::mem::take(&mut self.made)))
    }
}

/// Whatever was not filled goes away again.
impl Drop for NewFiles {
    fn drop(&mut self) {
        for (_, path, _) in &self.made {
            let _ = fs::remove_file(path);
        }
    }
}

/// Files with their contents.
#[derive(Debug)]
pub struct Written(Vec<(Kind, PathBuf, File)>);

impl Written {
    /// Has them outlast a crash of the machine.
    pub fn sync(self) -> Result<(), FileError> {
        for (kind, path, file) in self.0 {
            let write = |source| FileError::Write { kind, path: path.clone(), source };
            file.sync_all().map_err(write)?;
            sync_folder(&path).map_err(write)?;
        }
        Ok(())
    }
}

/// Puts a content in a file's place: whole or not at all.
pub fn replace(kind: Kind, path: &Path, mode: u32, content: &str) -> Result<(), FileError> {
    let attempt = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new()
            .prefix(".ca-")
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder(path))?;
        temporary.write_all(content.as_bytes())?;
        temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_folder(path)
    };
    attempt().map_err(|source| FileError::Write { kind, path: path.to_owned(), source })
}

/// Puts new contents in the places of files that were there, in this order. What was there stays beside it, as
/// `NAME.old`, and is never written over: a file of that name is in the way, unless it is the very same.
pub fn supersede(files: &[(Kind, &Path, &str)]) -> Result<(), FileError> {
    for (kind, path, _) in files {
        let old = old(path);
        let write = |source| FileError::Write { kind: *kind, path: old.clone(), source };
        match fs::hard_link(path, &old) {
            // It may have gone to the machine that it is for.
            Err(error) if error.kind() == io::ErrorKind::NotFound && *kind == Kind::Key => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Another run may have been cut short here.
                let same = fs::read(path).and_then(|now| Ok(now == fs::read(&old)?)).map_err(write)?;
                if !same {
                    return Err(FileError::Kept(old));
                }
            }
            other => other.map_err(write)?,
        }
    }
    files.iter().try_for_each(|(kind, path, content)| replace(*kind, path, 0o600, content))
}

/// Where the file goes that another takes the place of.
pub fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The folder of a file; a bare name is in the current one.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
