//! `serve --metrics ADDRESS`: serves the metrics over HTTP, for a scraper.
//!
//! Runs in the mounter, on a thread of its own that serves one caller after the other. Every process that can connect may read:
//! targets and types are shown, sources and options are not.

use super::Mounter;
use super::volume::helper_process::resident;
use super::volume::usage::usage;
use crate::observe::metrics::{self, text::Now};
use linux::processes::OWN;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tracing::debug;

/// How long one caller may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any scraper's request.
const LONGEST_REQUEST: u64 = 16 << 10;
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on `listener` for as long as the mounter runs.
pub(super) fn serve_on(listener: TcpListener, mounter: Arc<Mounter>) -> io::Result<()> {
    let work = move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| answer(stream, &mounter)) {
                debug!("a scraper got no answer: {error}");
            }
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(work).map(drop)
}

/// All metrics, as they are now.
pub(super) fn text(mounter: &Mounter) -> io::Result<String> {
    let (volumes, own) = (usage(mounter)?, Path::new(OWN).join("self"));
    let descriptors = fs::read_dir(own.join("fd")).map_or(0, |list| list.count() as u64);
    let memory = resident(&fs::read_to_string(own.join("status")).unwrap_or_default());
    let now = Now { volumes: &volumes, searched: mounter.search.searched(), descriptors, memory };
    Ok(metrics::text::text(&mounter.metrics, &now))
}

fn answer(mut stream: TcpStream, mounter: &Mounter) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(LONGEST_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest is read, so that closing does not take the answer back.
    lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let mut words = request.split(' ');
    let (status, format, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => match text(mounter) {
            Ok(text) => ("200 OK", FORMAT, text),
            Err(error) => {
                ("500 Internal Server Error", "text/plain", format!("cannot read the mount table: {error}\n"))
            }
        },
        _ => ("404 Not Found", "text/plain", "metrics are at /metrics\n".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {format}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
