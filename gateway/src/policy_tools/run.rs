//! The shell of the policy commands: reads files, the store and the clock, and turns what comes out into text and a code.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pomerium_shared::{clock::Now, posture::PostureReport};
use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject as _},
};
use serde_json::Value as Json;
use url::Url;

use super::{
    cases,
    diff::{self, Survey},
    explain::{self, Asked},
    persona::{self, DevicePersona, Persona},
    replay::Replay,
    routes::{Place, RouteError, Routes},
};
use crate::{
    app,
    authorize::{PresentedCertificate, Situation},
    config::{self, ConfigErrors, Diagnostic, Storage},
    secret::Secret,
    store::{Known, StoreError, StoreReader},
};

/// Done, and the answer is yes: allowed, passed, nothing changes.
pub(crate) const EXIT_YES: u8 = 0;
/// Done, and the answer is no: a case failed, access changes.
pub(crate) const EXIT_NO: u8 = 1;
/// Something could not be read, so that there is no answer.
pub(crate) const EXIT_TROUBLE: u8 = 2;
/// The command line asks for what is not there.
pub(crate) const EXIT_USAGE: u8 = 64;
/// `explain`: not allowed.
pub(crate) const EXIT_NOT_ALLOWED: u8 = 77;

/// What a command prints, and its exit code.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) text: String,
    pub(crate) code: u8,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The routes of a configuration cannot be used.
    #[error("{0}")]
    Config(ConfigErrors),
    /// A table of cases cannot be used.
    #[error("{}", lines(.0))]
    Cases(Vec<Diagnostic>),
    /// The command line names no route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A file cannot be read.
    #[error("{}: cannot read it", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A posture report is none.
    #[error("{}: this is no posture report", .file.display())]
    Posture {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// A client certificate is none.
    #[error("{}: this is no certificate in PEM", .file.display())]
    Certificate {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        error: pem::Error,
    },
    /// The store does not answer.
    #[error("the store in {place} cannot be read")]
    Store {
        /// Which.
        place: String,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// Nothing says where the people are.
    #[error("the new configuration keeps nobody over a restart: name a store with --store FOLDER")]
    NoPeople,
    /// There is no store where the command line says.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
}

impl Trouble {
    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Cases(_) => app::EXIT_CONFIG,
            Self::Route(_)
            | Self::Posture { .. }
            | Self::Certificate { .. }
            | Self::NoStore(_)
            | Self::NoPeople => EXIT_USAGE,
            Self::File { .. } | Self::Store { .. } => EXIT_TROUBLE,
        }
    }
}

/// A configuration as far as policy needs it.
struct Candidate {
    routes: Routes,
    storage: Option<Storage>,
}

impl Candidate {
    fn load(file: &Path) -> Result<Self, Trouble> {
        let access = config::access(file, &|name| std::env::var(name).ok(), Path::new("."));
        let access = access.map_err(Trouble::Config)?;
        Ok(Self { routes: Routes::new(access.routes, access.records), storage: access.storage })
    }

    /// Where its people are: in the folder `given`, else where the configuration says.
    fn store<'a>(&'a self, given: Option<&'a Path>) -> Option<People<'a>> {
        match (&self.storage, given) {
            (_, Some(folder)) => Some(People::Folder(folder)),
            (Some(Storage::Folder(folder)), None) => Some(People::Folder(folder)),
            (Some(Storage::Postgres(url)), None) => Some(People::Postgres(url)),
            (Some(Storage::Memory) | None, None) => None,
        }
    }
}

/// Where people are kept.
#[derive(Debug, Clone, Copy)]
enum People<'a> {
    Folder(&'a Path),
    Postgres(&'a Secret<Url>),
}

impl People<'_> {
    /// Opens the store; a folder that only the configuration names need not have one.
    async fn open(self, must_exist: bool) -> Result<Option<StoreReader>, Trouble> {
        match self {
            Self::Folder(folder) => match StoreReader::open(folder).await {
                Ok(None) if must_exist => Err(Trouble::NoStore(folder.to_owned())),
                opened => opened.map_err(|error| self.trouble(error)),
            },
            Self::Postgres(url) => {
                StoreReader::open_postgres(url).await.map(Some).map_err(|error| self.trouble(error))
            }
        }
    }

    fn trouble(self, error: StoreError) -> Trouble {
        let place = match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Postgres(_) => "PostgreSQL".to_owned(),
        };
        Trouble::Store { place, error }
    }
}

/// What `policy explain` is told.
#[derive(Debug)]
pub(crate) struct ExplainOptions {
    pub(crate) config: PathBuf,
    pub(crate) store: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) route: String,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) ip: IpAddr,
    pub(crate) country: Option<String>,
    pub(crate) asn: Option<u32>,
    pub(crate) time: Option<SystemTime>,
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) claims: BTreeMap<String, Vec<Json>>,
    pub(crate) posture: Option<PathBuf>,
    /// A client certificate in PEM, the leaf first; taken as valid.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) is_approved: bool,
    pub(crate) is_bound: bool,
}

/// `policy explain`.
///
/// # Errors
/// Any [`Trouble`].
pub(crate) async fn explain(options: ExplainOptions) -> Result<Outcome, Trouble> {
    let mut now = Now::read();
    now.wall = options.time.unwrap_or(now.wall);
    let candidate = Candidate::load(&options.config)?;
    let (route, place) =
        candidate.routes.find(&options.route, options.path.as_deref(), options.method.as_deref())?;
    let known = match (&options.user, candidate.store(options.store.as_deref())) {
        (Some(user), Some(kept)) => person(kept, options.store.is_some(), user).await?,
        _ => None,
    };
    let named = options.user.as_deref().filter(|_| known.is_none()).map(Persona::named).unwrap_or_default();
    let persona = Persona {
        groups: options.groups,
        claims: options.claims,
        is_bound: options.is_bound.then_some(true),
        ..named
    };
    let is_somebody = known.is_some() || persona.is_somebody();
    let session = is_somebody.then(|| persona.session(known.as_ref(), now.wall));
    let posture = options.posture.as_deref().map(posture).transpose()?;
    let certificate = options.certificate.as_deref().map(certificate).transpose()?;
    let device = DevicePersona {
        is_approved: options.is_approved,
        posture: posture.map(|report| (report, None)),
        ..DevicePersona::default()
    };
    let device = (device != DevicePersona::default()).then_some(device);
    let situation = Situation {
        device: session.as_ref().zip(device).map(|(session, device)| device.device(session, now.wall)),
        session,
        method: options.method.unwrap_or_else(|| place.method().to_owned()),
        source_ip: options.ip,
        country: options.country,
        asn: options.asn,
        certificate,
        ..place_asked(&place, now)
    };
    let source = persona::source(known.as_ref(), now.wall);
    let check = candidate.routes.check(&situation);
    let asked = Asked { route, place: &place, check: &check, source: &source };
    let (text, is_allowed) = explain::explain(&asked);
    Ok(Outcome { text, code: if is_allowed { EXIT_YES } else { EXIT_NOT_ALLOWED } })
}

/// `policy test`.
///
/// # Errors
/// [`Trouble::Config`], [`Trouble::Cases`], [`Trouble::File`].
pub(crate) fn test(file: &Path, config: &Path) -> Result<Outcome, Trouble> {
    let candidate = Candidate::load(config)?;
    let name = file.display().to_string();
    let cases = cases::parse(&read(file)?, &name).map_err(Trouble::Cases)?;
    let (text, failed) = cases::run(&cases, &candidate.routes, &name, Now::read());
    Ok(Outcome { text, code: if failed == 0 { EXIT_YES } else { EXIT_NO } })
}

/// What `policy diff` is told.
#[derive(Debug)]
pub(crate) struct DiffOptions {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
    pub(crate) store: Option<PathBuf>,
    pub(crate) ip: IpAddr,
    pub(crate) time: Option<SystemTime>,
    pub(crate) is_json: bool,
}

/// `policy diff`.
///
/// # Errors
/// Any [`Trouble`]; without a store, there are no people to compare for.
pub(crate) async fn diff(options: DiffOptions) -> Result<Outcome, Trouble> {
    let mut now = Now::read();
    now.wall = options.time.unwrap_or(now.wall);
    let (old, new) = (Candidate::load(&options.old)?, Candidate::load(&options.new)?);
    let kept = new.store(options.store.as_deref()).ok_or(Trouble::NoPeople)?;
    let known = match kept.open(true).await? {
        None => Vec::new(),
        Some(reader) => {
            let people = reader.people().await;
            reader.close().await;
            people.map_err(|error| kept.trouble(error))?
        }
    };
    let persona = Persona::default();
    let people: Vec<_> = known.iter().map(|known| persona.session(Some(known), now.wall)).collect();
    let survey = Survey { old: &old.routes, new: &new.routes, people: &people, ip: options.ip, now };
    let comparison = diff::compare(&survey);
    let text = if options.is_json { comparison.json() } else { comparison.table() };
    Ok(Outcome { text, code: if comparison.is_change() { EXIT_NO } else { EXIT_YES } })
}

/// `policy replay`; `-` is standard input.
///
/// # Errors
/// [`Trouble::Config`], [`Trouble::File`].
pub(crate) fn replay(new: &Path, log: &Path, is_json: bool) -> Result<Outcome, Trouble> {
    let candidate = Candidate::load(new)?;
    let mut replay = Replay::new(&candidate.routes, Now::read());
    let read = if log == Path::new("-") {
        replay.read(&mut io::stdin().lock())
    } else {
        File::open(log).and_then(|file| replay.read(&mut BufReader::new(file)))
    };
    read.map_err(|error| Trouble::File { file: log.to_owned(), error })?;
    let report = replay.report();
    let text = if is_json { report.json() } else { report.table() };
    let code = match (report.has_decisions(), report.is_change()) {
        (false, _) => EXIT_TROUBLE,
        (true, true) => EXIT_NO,
        (true, false) => EXIT_YES,
    };
    Ok(Outcome { text, code })
}

/// A stranger's question for a place.
pub(super) fn place_asked(place: &Place, now: Now) -> Situation {
    Situation {
        method: place.method().to_owned(),
        host: place.host().to_owned(),
        path: place.path().to_owned(),
        ..Situation::of_stranger(now)
    }
}

async fn person(kept: People<'_>, must_exist: bool, who: &str) -> Result<Option<Known>, Trouble> {
    let Some(reader) = kept.open(must_exist).await? else { return Ok(None) };
    let known = reader.person(who).await;
    reader.close().await;
    known.map_err(|error| kept.trouble(error))
}

fn posture(file: &Path) -> Result<PostureReport, Trouble> {
    let text = read(file)?;
    serde_json::from_str(&text).map_err(|error| Trouble::Posture { file: file.to_owned(), error })
}

fn certificate(file: &Path) -> Result<PresentedCertificate, Trouble> {
    let leaf = CertificateDer::from_pem_slice(read(file)?.as_bytes())
        .map_err(|error| Trouble::Certificate { file: file.to_owned(), error })?;
    Ok(PresentedCertificate { leaf: leaf.to_vec(), is_valid: true })
}

fn read(file: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(file).map_err(|error| Trouble::File { file: file.to_owned(), error })
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
