//! What the operator means: every value parsed, every default filled in.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::{AuthorizeService, Route, WireGuard};
use crate::{
    authorize::Records, client_authority::ClientAuthority, geography::Geography, ocsp::Staple, portal::Look,
    secret::Secret, session::expiry::TimeOfDay,
};

/// The whole configuration, whole and valid. A reload builds a new one or keeps the old.
#[derive(Debug)]
pub struct Settings {
    /// `address`: where HTTPS (TCP) and QUIC (UDP) listen.
    pub address: SocketAddr,
    /// `http_redirect_addr`: a plain listener that sends browsers to HTTPS.
    pub http_redirect_addr: Option<SocketAddr>,
    /// `use_proxy_protocol`: whether a balancer says on each TCP connection whose it is.
    pub use_proxy_protocol: bool,
    /// `services`: which parts this process runs.
    pub services: Services,
    /// `authorize_service_url(s)`: who decides, where this process does not.
    pub authorize_service: Option<AuthorizeService>,
    /// `grpc_address`: where Envoy and its kin ask over gRPC. `None`: they cannot.
    pub grpc: Option<GrpcDoor>,
    /// `forward_auth_address`: where other proxies ask over HTTP. `None`: they cannot.
    pub forward_auth: Option<ForwardAuthDoor>,
    /// `wireguard_*`: where WireGuard apps come in. `None`: they cannot.
    pub wireguard: Option<WireGuard>,
    /// `connections_per_address` and `sign_in_requests_per_address`.
    pub per_address: PerAddress,
    /// `codec_type`: which protocols the listeners speak.
    pub codec: Codec,
    /// `certificates` and its kin: chosen by server name, the first is the default. At least one, unless `autocert` gets them.
    pub certificates: Vec<Certificate>,
    /// `autocert*`: where the others come from. `None`: there are no others.
    pub autocert: Option<Autocert>,
    /// `downstream_mtls`: who issues clients' certificates.
    pub downstream_mtls: DownstreamMtls,
    /// `shared_secret`: 32 bytes; session handles and signed URLs derive from it. `None`: one kept in the storage.
    pub shared_secret: Option<Secret<[u8; 32]>>,
    /// `cookie_secret`: 32 bytes; protects the sign-in's own state. `None`: one kept in the storage.
    pub cookie_secret: Option<Secret<[u8; 32]>>,
    /// `signing_key`: PKCS#8 or SEC 1 PEM of the P-256 keys that sign the identity header; empty: derive one.
    pub signing_keys: Vec<Secret<String>>,
    /// `authenticate_service_url`: its origin is the sign-in host.
    pub authenticate_url: Url,
    /// `signout_redirect_url`: where signing out ends.
    pub signout_redirect_url: Option<Url>,
    /// `programmatic_redirect_domain_whitelist`: hosts that may receive a token; `localhost` stands for any loopback address.
    pub programmatic_redirect_domains: Vec<String>,
    /// `cookie_*`.
    pub cookie: CookieSettings,
    /// `idp_*`.
    pub identity_provider: IdentityProvider,
    /// `workload_issuers`: whose tokens programs may trade for a session.
    pub workload_issuers: Vec<WorkloadIssuer>,
    /// `scim_token`: what a directory shows to push people and groups. `None`: none may.
    pub scim_token: Option<Secret<String>>,
    /// `device_proof_expire`: how long a browser counts as the device that it proved to be.
    pub device_proof_life: Duration,
    /// `jwt_claims_headers`: header to claim, in the order of the file.
    pub jwt_claims_headers: Vec<(HeaderName, String)>,
    /// `jwt_issuer_format`.
    pub jwt_issuer_format: IssuerFormat,
    /// `pass_identity_headers`: the default for routes.
    pub pass_identity_headers: bool,
    /// `set_response_headers`: the default for routes.
    pub set_response_headers: Vec<(HeaderName, HeaderValue)>,
    /// `timeout_*` and `default_upstream_timeout`.
    pub timeouts: Timeouts,
    /// `stream_resume_window`: how long a stream is kept whose client has lost its connection; `None`: not at all.
    pub stream_resume_window: Option<Duration>,
    /// `databroker_storage_*`: where sessions, users and keys are kept.
    pub storage: Storage,
    /// `records_file`: external data for the criterion `record`.
    pub records: Option<Records>,
    /// `geoip_country_file` and `geoip_asn_file`: where addresses are, for `network/country` and `network/asn`.
    pub geography: Geography,
    /// `branding`: how the gateway's own pages look.
    pub look: Look,
    /// `log_level`: a `tracing` filter directive (`info`, `debug`, ...).
    pub log_level: String,
    /// `policy` followed by `routes`: the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
}

impl Settings {
    /// The longest that any route bears a silent provider: a session lives on for so long.
    #[must_use]
    pub fn longest_unreachable_grace(&self) -> Duration {
        let of_routes = self.routes.iter().map(|route| route.unreachable_grace);
        of_routes.max().unwrap_or(self.identity_provider.unreachable_grace)
    }

    /// All authorities for clients' certificates, the general one first.
    #[must_use]
    pub fn client_authorities(&self) -> Vec<Arc<ClientAuthority>> {
        let mut all: Vec<Arc<ClientAuthority>> = Vec::new();
        let of_routes = self.routes.iter().filter_map(|route| route.client_authority.as_ref());
        for authority in self.downstream_mtls.authority.iter().chain(of_routes) {
            if !all.iter().any(|known| Arc::ptr_eq(known, authority)) {
                all.push(authority.clone());
            }
        }
        all
    }
}

/// `autocert*`: the authority that gives certificates by ACME (RFC 8555).
#[derive(Debug, Clone)]
pub struct Autocert {
    /// `autocert_ca`, or Let's Encrypt's own, or its staging: the directory.
    pub directory: Url,
    /// `autocert_email`: whom the authority tells of trouble.
    pub email: Option<String>,
    /// `autocert_eab_*`: what ties the account to one that the operator has there (RFC 8555, 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// `autocert_trusted_ca`: roots to trust for the authority's own server, beside the system's.
    pub roots: Vec<CertificateDer<'static>>,
}

/// `autocert_eab_key_id` and `autocert_eab_mac_key`.
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    /// Names the account.
    pub key_id: String,
    /// The key that both know.
    pub mac_key: Secret<Vec<u8>>,
}

/// What one address may take; an IPv6 network of 64 bits is one, and the machine's own are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerAddress {
    /// `connections_per_address`: open connections, TCP and QUIC together.
    pub connections: NonZeroU32,
    /// `sign_in_requests_per_address`: requests a second to the sign-in host and to `/.pomerium/`.
    pub sign_in_requests: NonZeroU32,
}

/// `downstream_mtls`.
#[derive(Debug, Clone)]
pub struct DownstreamMtls {
    /// `ca`, `crl`, `match_subject_alt_names` and `max_verify_depth`: for routes that name no authority of their own.
    pub authority: Option<Arc<ClientAuthority>>,
    /// `enforcement`.
    pub enforcement: Enforcement,
}

/// `enforcement`: what becomes of a client without a valid certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// `policy`: what the routes' policies say.
    Policy,
    /// `policy_with_default_deny`: each route that has an authority refuses it.
    #[default]
    PolicyWithDefaultDeny,
    /// `reject_connection`: so it does, and its TLS handshake fails already.
    RejectConnection,
}

/// `services`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// `all`: everything in one process.
    All,
    /// `authorize`: decisions alone, for the other parts and for other proxies. Sessions come from the storage, where another process puts them.
    Authorize,
    /// `proxy,authenticate`: everything but decisions, which another process takes.
    AllButAuthorize,
    /// `proxy`: the ways to the apps alone. Others sign people in and take the decisions.
    Proxy,
    /// `authenticate`: the sign-in host alone.
    Authenticate,
}

impl Services {
    /// Whether people sign in at this process.
    pub(crate) fn signs_in(self) -> bool {
        matches!(self, Self::All | Self::AllButAuthorize | Self::Authenticate)
    }

    /// Whether this process is the way to the apps.
    pub(crate) fn proxies(self) -> bool {
        matches!(self, Self::All | Self::AllButAuthorize | Self::Proxy)
    }

    /// Whether another process is asked for decisions.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::AllButAuthorize | Self::Proxy)
    }
}

/// The door for Envoy's authorization protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcDoor {
    /// `grpc_address`.
    pub address: SocketAddr,
    /// `grpc_insecure` and `grpc_client_ca`.
    pub tls: GrpcTls,
}

/// How callers over gRPC reach the door, and how they prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcTls {
    /// `grpc_insecure`: plain; by a token that `shared_secret` signs.
    None,
    /// The gateway's certificates; by such a token.
    Token,
    /// The gateway's certificates; by a client certificate from one of these authorities (`grpc_client_ca`).
    Mutual(Vec<CertificateDer<'static>>),
}

/// The door for proxies that carry the traffic themselves and ask what may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthDoor {
    /// `forward_auth_address`.
    pub address: SocketAddr,
    /// `forward_auth_trusted_peers`: who may ask. What they say of a request is believed.
    pub trusted_peers: Vec<IpNet>,
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// `auto` and `http3`: HTTP/1.1 and HTTP/2 on TCP, HTTP/3 on UDP.
    All,
    /// `http1`: HTTP/1.1 alone; no QUIC listener.
    Http1,
    /// `http2`: HTTP/2 alone; no QUIC listener.
    Http2,
}

/// A certificate chain (leaf first) and its private key.
#[derive(Debug)]
pub struct Certificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// `ocsp`: what the issuer says of the leaf, if the operator fetches it.
    pub staple: Option<Staple>,
}

/// `cookie_*`. Cookies are always `Secure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSettings {
    /// `cookie_name`.
    pub name: String,
    /// `cookie_domain`: empty means host only.
    pub domain: Option<String>,
    /// `cookie_http_only`.
    pub http_only: bool,
    /// `cookie_expire`: the life of the cookie and of the session; `None` where only the time of day ends it.
    pub expire: Option<Duration>,
    /// `session_expires_at`: the time of day at which every session ends.
    pub expire_at: Option<TimeOfDay>,
    /// `cookie_same_site`: `lax` when unset.
    pub same_site: SameSite,
}

/// The `SameSite` attribute of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Never sent across sites.
    Strict,
    /// Sent across sites on top-level navigation only.
    Lax,
    /// Always sent.
    None,
}

/// `idp_*`: the OIDC provider that signs people in.
#[derive(Debug, Clone)]
pub struct IdentityProvider {
    /// `idp_provider_url`: the issuer; discovery starts here.
    pub issuer: Url,
    /// `idp_client_id`.
    pub client_id: String,
    /// `idp_client_secret`; a public client has none.
    pub client_secret: Option<Secret<String>>,
    /// `idp_scopes`: never empty, always with `openid`.
    pub scopes: Vec<String>,
    /// `idp_request_params`: extra parameters of the authorization request.
    pub request_params: Vec<(String, String)>,
    /// `idp_unreachable_grace`: how long a session outlives what the provider vouched for, while the provider cannot be
    /// reached, on routes that say nothing else; zero: not at all.
    pub unreachable_grace: Duration,
    /// In what this provider differs from the book.
    pub quirks: ProviderQuirks,
}

/// One entry of `workload_issuers`: an issuer whose tokens programs (CI jobs, pods) may trade for a short session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadIssuer {
    /// `name`: policy sees `workload/<name>/<sub>` as the user.
    pub name: String,
    /// `issuer`: what `iss` must be; its keys come from its discovery document.
    pub issuer: Url,
    /// `audience`: one of these must be in `aud`.
    pub audiences: Vec<String>,
    /// `claims`: each of these must be there with one of the values.
    pub claims: Vec<(String, Vec<String>)>,
    /// `groups`: the groups that policy sees.
    pub groups: Vec<String>,
    /// `expire`: how long a session lasts at most; never longer than the token.
    pub expire: Duration,
}

/// In what a provider differs from plain OpenID Connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderQuirks {
    /// The claim that holds the groups.
    pub groups_claim: &'static str,
    /// Whether its answer comes as a form that its own page posts to us.
    pub answers_by_form: bool,
    /// Whether one issuer stands for many tenants, each of which says of its people what it likes.
    pub has_many_tenants: bool,
    /// Where it signs people out.
    pub sign_out: SignOutPage,
}

/// Where a provider signs people out, if discovery names no `end_session_endpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOutPage {
    /// Nowhere.
    Discovered,
    /// `/v2/logout` of the issuer.
    Auth0,
    /// `/logout` beside the sign-in page.
    Cognito,
}

/// `jwt_issuer_format`: how the `iss` of the identity header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerFormat {
    /// `IssuerHostOnly`: `app.example.com`.
    HostOnly,
    /// `IssuerURI`: `https://app.example.com/`.
    Uri,
}

/// `timeout_*` and `default_upstream_timeout`; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `timeout_read`: for the whole of a request to arrive; a large one earns more.
    pub read: Option<Duration>,
    /// `timeout_write`: for the whole of a stream.
    pub write: Option<Duration>,
    /// `timeout_idle`: for a connection or stream on which nothing moves.
    pub idle: Option<Duration>,
    /// `default_upstream_timeout`: for an app's whole response, where the route says nothing.
    pub upstream: Option<Duration>,
}

/// Where sessions, users and keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Gone with the process.
    Memory,
    /// A SQLite database in this folder.
    Folder(PathBuf),
    /// A PostgreSQL database, which other gateways may have open as well.
    Postgres(Secret<Url>),
}
