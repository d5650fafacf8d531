//! The program's life: one thread; a socket for calls, and one to be registered by, unless it is a controller.

use crate::api_server::{ApiError, ApiServer};
use crate::conditions::Conditions;
use crate::controller::ControllerService;
use crate::csi::controller_server::ControllerServer;
use crate::csi::identity_server::IdentityServer;
use crate::csi::node_server::NodeServer;
use crate::identity::IdentityService;
use crate::list::PersistentVolumes;
use crate::mounter::Mounter;
use crate::node::NodeService;
use crate::places::Places;
use crate::pluginregistration::registration_server::RegistrationServer;
use crate::registration::RegistrationService;
use crate::settings::{ApiAccess, Settings};
use crate::socket::{NamedSocket, SocketError};
use crate::taint::StartupTaint;
use rustix::fs::Mode;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tonic::transport::Server;
use tracing::info;

/// How long calls under way are waited for when the program is to end: Kubernetes kills it after 30 s.
const LAST_CALLS: Duration = Duration::from_secs(20);
/// How many calls of one connection are served at a time. Kubelet makes a connection for each call.
const CALLS: usize = 64;

/// Why the driver does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// gRPC, or a socket that could not be made again.
    #[error("cannot serve any longer")]
    Serve(#[from] tonic::transport::Error),
    /// The API server, which is to be asked for something.
    #[error("cannot ask the API server; without --api-access (or API_ACCESS) it is not asked")]
    Api(#[from] ApiError),
    /// The runtime.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT.
pub fn serve(settings: Settings) -> Result<(), ServeError> {
    // The sockets are for root and this user.
    rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
    runtime.block_on(serve_both(settings))
}

async fn serve_both(settings: Settings) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Start)?;
    let places = Places::new(&settings);
    let mounter = Mounter::new(settings.mounter.clone(), settings.mount_timeout);
    let name = settings.driver_name.clone();
    let own = settings.endpoint.is_some();
    let endpoint = settings.endpoint.unwrap_or_else(|| places.endpoint());
    let registered = Arc::new(Notify::new());
    let conditions = ask_api_server(&settings.api_access, &name, &settings.node_id, &mounter, &registered)?;
    let registration = RegistrationService { name: name.clone(), endpoint: endpoint.display().to_string(), registered };
    let identity = IdentityService { name: name.clone(), mounter: mounter.clone() };
    let (node_id, max_volumes) = (settings.node_id, settings.max_volumes);
    let list = settings.api_access.volumes.then(ApiServer::of_environment).transpose()?;
    let list = list.map(|server| PersistentVolumes { server, driver: name.clone() });
    let controller = ControllerService { places: places.clone(), mounter: mounter.clone(), list };
    let node = NodeService { node_id, max_volumes, places: places.clone(), mounter, conditions };
    // Kubelet connects to the first as soon as it has read the second.
    let calls = NamedSocket::make(endpoint)?;
    let registrations = if own { None } else { Some(NamedSocket::make(places.registration())?) };
    info!(event = "csi.ready", driver = name, "the driver takes calls");

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let stopped = |mut stopping: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let driver = Server::builder()
        .concurrency_limit_per_connection(CALLS)
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(node))
        .add_service(ControllerServer::new(controller))
        .serve_with_incoming_shutdown(calls.connections(), stopped(stopping.clone()));
    let registrar = async {
        let Some(registrations) = registrations else { return Ok(()) };
        Server::builder()
            .concurrency_limit_per_connection(CALLS)
            .add_service(RegistrationServer::new(registration))
            .serve_with_incoming_shutdown(registrations.connections(), stopped(stopping))
            .await
    };
    let serving = async { tokio::try_join!(driver, registrar) };
    tokio::pin!(serving);
    tokio::select! {
        done = &mut serving => return done.map(|_| ()).map_err(ServeError::from),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The sockets stay: kubelet would forget the driver without them, and the next process takes them over.
    info!(event = "csi.stopping", "stopping: calls under way are finished");
    let _ = stop.send(true);
    let _ = tokio::time::timeout(LAST_CALLS, serving).await;
    Ok(())
}

/// Starts what has to do with the API server; where the node service says how volumes are, if pods get events.
fn ask_api_server(
    access: &ApiAccess,
    driver: &str,
    node: &str,
    mounter: &Mounter,
    registered: &Arc<Notify>,
) -> Result<Option<Arc<Conditions>>, ApiError> {
    let (driver, node) = (|| driver.to_owned(), || node.to_owned());
    if access.taint {
        let (taint, registered) = (
            StartupTaint { server: ApiServer::of_environment()?, driver: driver(), node: node() },
            Arc::clone(registered),
        );
        tokio::spawn(async move { taint.keep_away(registered).await });
    }
    if !access.events {
        return Ok(None);
    }
    let (conditions, reporter) = Conditions::new(ApiServer::of_environment()?, mounter.clone(), driver(), node());
    tokio::spawn(reporter.send_all());
    Ok(Some(Arc::new(conditions)))
}
