//! The volumes that there are: the API server's PersistentVolumes of this driver, as nothing is kept here.

use crate::api_server::{ApiError, ApiServer};
use crate::csi::list_volumes_response::Entry;
use crate::csi::{ListVolumesRequest, ListVolumesResponse, Volume};
use hyper::StatusCode;
use serde_json::Value;
use std::collections::HashMap;
use tonic::Status;

/// How many PersistentVolumes are asked for at once: a page must fit into an answer.
const PAGE: u32 = 100;
/// How many pages of others' volumes are skipped in a call.
const PAGES: usize = 50;

/// Where they are listed.
#[derive(Debug, Clone)]
pub struct PersistentVolumes {
    /// Who has them.
    pub server: ApiServer,
    /// The driver's name.
    pub driver: String,
}

impl PersistentVolumes {
    /// As the specification has ListVolumes: no more than `max_entries`, if that is not 0, and where to go on. The number of entries may
    /// be less. ABORTED: a token that is none, or is too old; list them from the beginning.
    pub async fn list(&self, request: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        let ListVolumesRequest { max_entries, starting_token } = request;
        let most = u32::try_from(max_entries).map_err(|_| Status::invalid_argument("max_entries is negative"))?;
        let limit = if most == 0 { PAGE } else { most.min(PAGE) };
        if !starting_token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=.~".contains(&byte)) {
            return Err(Status::aborted("starting_token is none of this driver's"));
        }
        let (mut entries, mut next_token) = (Vec::new(), starting_token);
        for _ in 0..PAGES {
            let path = match &*next_token {
                "" => format!("/api/v1/persistentvolumes?limit={limit}"),
                token => format!("/api/v1/persistentvolumes?limit={limit}&continue={token}"),
            };
            let page = self.server.get(&path).await.map_err(refused)?;
            next_token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let volumes = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            entries.extend(volumes.iter().filter_map(|volume| self.entry(volume)));
            // All of them, or as many as may be.
            let full = most != 0 && entries.len() + limit as usize > most as usize;
            if next_token.is_empty() || full || entries.len() >= PAGE as usize {
                break;
            }
        }
        Ok(ListVolumesResponse { entries, next_token })
    }

    /// What CreateVolume said of a volume, or the author of its PersistentVolume. None: it is another driver's.
    fn entry(&self, volume: &Value) -> Option<Entry> {
        let csi = &volume["spec"]["csi"];
        if csi["driver"].as_str()? != self.driver {
            return None;
        }
        let context = csi["volumeAttributes"].as_object().into_iter().flatten();
        let context: HashMap<_, _> =
            context.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        // 0: it is not known. A directory is as large as its filesystem.
        let volume =
            Volume { capacity_bytes: 0, volume_id: csi["volumeHandle"].as_str()?.to_owned(), volume_context: context };
        Some(Entry { volume: Some(volume) })
    }
}

fn refused(error: ApiError) -> Status {
    match error {
        ApiError::Refused { status: StatusCode::GONE | StatusCode::BAD_REQUEST, words, .. } => {
            Status::aborted(format!("starting_token is too old, or none; list volumes from the beginning: {words}"))
        }
        error => Status::unavailable(format!(
            "the API server's PersistentVolumes, which this driver lists, cannot be had: {}",
            api::exit::chain(&error)
        )),
    }
}
