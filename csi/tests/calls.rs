//! Calls at a socket of the driver's.
//!
//! Runs in the tests' process.

use crate::node::Place;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::os::unix::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Makes a call at a socket that `place` has, as kubelet does: with a connection of its own.
pub(crate) fn call<T, F>(place: &Place, socket: &str, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = place.visit(|| UnixStream::connect(socket));
    let stream = stream.map_err(|error| Status::unavailable(format!("{socket}: {error}")))?;
    runtime.block_on(async { call(channel(stream).await?).await.map(Response::into_inner) })
}

/// A connection that is there already.
async fn channel(stream: UnixStream) -> Result<Channel, Status> {
    stream.set_nonblocking(true).unwrap();
    let mut stream = Some(tokio::net::UnixStream::from_std(stream).unwrap());
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { stream.map(TokioIo::new).map_err(std::io::Error::from) }
    });
    // No name is looked up.
    let connected = Endpoint::from_static("http://driver").connect_with_connector(connector).await;
    connected.map_err(|error| Status::unavailable(format!("{error:?}")))
}
