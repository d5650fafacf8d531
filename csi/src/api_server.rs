//! Kubernetes' API server, where the driver's account may ask it for something: for events of pods, and for the node's start-up taint.
//!
//! Each call has a connection of its own, and reads the account's token and the cluster's certificates anew, as kubelet replaces
//! them: between two calls nothing is kept, and nothing wakes this process. The crate `kube` would bring watches, caches and the types of
//! all of Kubernetes for three paths.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use zeroize::Zeroizing;

/// Where kubelet puts a pod's account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a call may take in all.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer, in bytes: that with a node's object, which names the node's images.
const LONGEST: usize = 2 << 20;
/// How much of an answer that is an error is shown.
const SHOWN: usize = 512;
/// The waits between two tries of a call: they double.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The API server, and the account that asks it.
#[derive(Debug, Clone)]
pub struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

/// Nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Not in a cluster.
    #[error(
        "the environment has no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, which kubelet sets in every pod"
    )]
    NoServer,
    /// No token, or no certificate.
    #[error("cannot read {}: the pod needs the token of a service account, and the cluster's certificates", path.display())]
    Account {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificates that are none.
    #[error("cannot use the certificates in {}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// TLS cannot be had so.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("cannot connect to the API server at {address}")]
    Connect {
        /// Where it should be.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A connection that ended.
    #[error("the API server did not answer as HTTP has it")]
    Http(#[from] hyper::Error),
    /// The answer is too long, or was not sent whole.
    #[error("cannot read the API server's answer: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// It said no.
    #[error("the API server answered {method} {path} with {status}: {words}")]
    Refused {
        /// What was asked.
        method: Method,
        /// Of what.
        path: String,
        /// What was answered.
        status: StatusCode,
        /// In words.
        words: String,
    },
    /// Not JSON.
    #[error("the API server's answer is not JSON")]
    Json(#[from] serde_json::Error),
    /// A call that cannot be.
    #[error("no request can be made of it")]
    Request(#[from] hyper::http::Error),
    /// It took too long.
    #[error("the API server at {address} did not answer for {} s", PATIENCE.as_secs())]
    TimedOut {
        /// Where it should be.
        address: String,
    },
}

impl ApiServer {
    /// The one that kubelet names in the environment of every pod.
    pub fn of_environment() -> Result<Self, ApiError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable("KUBERNETES_SERVICE_HOST").ok_or(ApiError::NoServer)?;
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).ok_or(ApiError::NoServer)?;
        Ok(Self { host, port, account: ACCOUNT.into() })
    }

    /// Reads an object.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ask(Method::GET, path, None).await
    }

    /// Makes an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.ask(Method::POST, path, Some(("application/json", object))).await
    }

    /// Changes an object by the steps of a JSON patch (RFC 6902), all of them or none.
    pub async fn patch(&self, path: &str, steps: &Value) -> Result<Value, ApiError> {
        self.ask(Method::PATCH, path, Some(("application/json-patch+json", steps))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, ApiError> {
        let late = |_| ApiError::TimedOut { address: self.address() };
        timeout(PATIENCE, self.converse(method, path, body)).await.map_err(late)?
    }

    /// As in a URL: an address of IPv6 has brackets.
    fn address(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(host)) => format!("[{host}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    async fn converse(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, ApiError> {
        let failed = |source| ApiError::Connect { address: self.address(), source };
        let token = Zeroizing::new(self.account_file("token", std::fs::read_to_string)?);
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        let stream = tls.connect(name, stream).await.map_err(failed)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim_end()));
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(HOST, self.address())
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, bearer.as_str());
        let request = match body {
            Some((kind, body)) => request.header(CONTENT_TYPE, kind).body(Full::from(body.to_string()))?,
            None => request.body(Full::<Bytes>::default())?,
        };
        let answer = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(ApiError::Answer)?.to_bytes();
            if !head.status.is_success() {
                return Err(refused(method, path, head.status, &body));
            }
            Ok(serde_json::from_slice(&body)?)
        };
        // It is the connection's end that ends the second, and the answer that ends the first.
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            },
        }
    }

    fn account_file<T>(&self, name: &str, read: impl FnOnce(PathBuf) -> io::Result<T>) -> Result<T, ApiError> {
        let path = self.account.join(name);
        read(path.clone()).map_err(|source| ApiError::Account { path, source })
    }

    fn tls(&self) -> Result<ClientConfig, ApiError> {
        let text = self.account_file("ca.crt", std::fs::read)?;
        let failed = |source| ApiError::Certificates { path: self.account.join("ca.crt"), source };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            roots.add(certificate.map_err(failed)?)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
    }
}

/// What the API server says of an error: a `Status` with a message, or anything else.
fn refused(method: Method, path: &str, status: StatusCode, body: &[u8]) -> ApiError {
    let message =
        serde_json::from_slice::<Value>(body).ok().and_then(|status| Some(status["message"].as_str()?.to_owned()));
    let words = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let words = api::shown::shown(&words.chars().take(SHOWN).collect::<String>()).to_string();
    ApiError::Refused { method, path: path.to_owned(), status, words }
}

/// The waits between tries, one after the other, for as long as one likes.
pub fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_WAIT), |wait| Some((*wait * 2).min(LONGEST_WAIT)))
}
