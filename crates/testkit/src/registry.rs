//! A registry that serves an OCI image layout, withholds blobs if told so, and remembers what it was asked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use tokio::sync::oneshot;

/// A registry on a port of the loopback interface; it ends when dropped.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// GET or HEAD.
    pub method: String,
    /// From `/v2/` on.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The size of what was asked for; 0 if it was refused.
    pub bytes: usize,
}

impl Access {
    /// The tag or the digest that was asked for.
    pub fn reference(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

struct Shared {
    layout: PathBuf,
    state: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    withheld: BTreeSet<String>,
    /// The beginning of image names, and what the header `Authorization` must be for them.
    protected: Option<(String, String)>,
    accesses: Vec<Access>,
    file: Option<File>,
}

impl Registry {
    /// Serves the layout in `layout` on a free port. Images that are added later are served as well.
    pub fn start(layout: &Path) -> io::Result<Self> {
        Self::start_on(layout, 0, None)
    }

    /// Serves on the given port, and writes a line per request to a file.
    pub fn start_on(layout: &Path, port: u16, log: Option<File>) -> io::Result<Self> {
        let state = Mutex::new(Log { file: log, ..Log::default() });
        let shared = Arc::new(Shared { layout: layout.into(), state });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = async { axum::serve(listener, app).await } => result.expect("the registry"),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The registry's part of an image's name.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The whole name of an image such as `test/box:1`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// From now on, has no blob of this digest.
    pub fn withhold(&self, digest: &str) {
        self.shared.lock().withheld.insert(digest.into());
    }

    /// From now on, has none of the layers that are in the layout now.
    pub fn withhold_layers(&self) -> io::Result<()> {
        let layers = self.shared.layers()?;
        self.shared.lock().withheld.extend(layers);
        Ok(())
    }

    /// From now on, gives images whose names begin so to nobody but this user.
    pub fn protect(&self, names: &str, user: &str, password: &str) {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.shared.lock().protected = Some((format!("/v2/{names}"), format!("Basic {credentials}")));
    }

    /// Has all blobs again.
    pub fn withhold_nothing(&self) {
        self.shared.lock().withheld.clear();
    }

    /// What it was asked for since the start or the last call of [`Registry::forget`].
    pub fn accesses(&self) -> Vec<Access> {
        self.shared.lock().accesses.clone()
    }

    /// How often a blob or a manifest was asked for.
    pub fn asked_for(&self, reference: &str) -> usize {
        self.shared.lock().accesses.iter().filter(|access| access.reference() == reference).count()
    }

    /// Empties the list of requests.
    pub fn forget(&self) {
        self.shared.lock().accesses.clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            // Both fail only if the thread has panicked, which it has said.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn allows(&self, request: &Request) -> bool {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.lock().protected.as_ref().is_none_or(|(names, credentials)| {
            !request.uri().path().starts_with(names) || given == Some(credentials.as_str())
        })
    }

    fn read_blob(&self, digest: &str) -> Option<Vec<u8>> {
        let hash = digest.strip_prefix("sha256:")?;
        let valid = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| std::fs::read(self.layout.join("blobs/sha256").join(hash)).ok()).flatten()
    }

    fn index(&self) -> io::Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.layout.join("index.json"))?)?)
    }

    fn digest_of_tag(&self, name: &str, tag: &str) -> Option<String> {
        let wanted = format!("{name}:{tag}");
        let index = self.index().ok()?;
        let manifests = index["manifests"].as_array()?;
        let found = manifests.iter().find(|one| one["annotations"]["org.opencontainers.image.ref.name"] == *wanted)?;
        found["digest"].as_str().map(Into::into)
    }

    fn layers(&self) -> io::Result<Vec<String>> {
        let mut todo = vec![self.index()?];
        let mut layers = Vec::new();
        while let Some(document) = todo.pop() {
            layers.extend(digests(&document["layers"]));
            for digest in digests(&document["manifests"]) {
                let manifest = self.read_blob(&digest).ok_or(io::ErrorKind::NotFound)?;
                todo.push(serde_json::from_slice(&manifest)?);
            }
        }
        Ok(layers)
    }

    fn find(&self, path: &str) -> Option<(String, Vec<u8>)> {
        let path = path.strip_prefix("/v2/")?;
        if path.is_empty() {
            return Some(("application/json".into(), b"{}".into()));
        }
        if let Some((_, digest)) = path.rsplit_once("/blobs/") {
            if self.lock().withheld.contains(digest) {
                return None;
            }
            return Some(("application/octet-stream".into(), self.read_blob(digest)?));
        }
        let (name, reference) = path.rsplit_once("/manifests/")?;
        let digest = self.digest_of_tag(name, reference).unwrap_or_else(|| reference.into());
        let manifest = self.read_blob(&digest)?;
        let document = serde_json::from_slice::<Value>(&manifest).ok()?;
        // Optional, and umoci leaves it out.
        let media_type =
            document["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
        Some((media_type, manifest))
    }
}

fn digests(descriptors: &Value) -> Vec<String> {
    let all = descriptors.as_array().into_iter().flatten();
    all.filter_map(|descriptor| descriptor["digest"].as_str()).map(Into::into).collect()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path();
    let allowed = shared.allows(&request);
    let found = match *request.method() {
        _ if !allowed => None,
        Method::GET | Method::HEAD => shared.find(path),
        _ => None,
    };
    let bytes = found.as_ref().map_or(0, |(_, content)| content.len());
    let response = match found {
        Some((media_type, content)) => {
            let digest = format!("sha256:{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&content)));
            let headers = [(header::CONTENT_TYPE.as_str(), media_type), ("docker-content-digest", digest)];
            (headers, Body::from(content)).into_response()
        }
        None if !allowed => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"tests\"")]).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    };
    let method = request.method().to_string();
    let access = Access { method, path: path.into(), status: response.status().as_u16(), bytes };
    let mut log = shared.lock();
    if let Some(file) = &mut log.file {
        // A log that cannot be written must not change what a test sees.
        let _ = writeln!(file, "{} {} {} {}", access.method, access.path, access.status, access.bytes);
    }
    log.accesses.push(access);
    response
}
