//! What is logged of calls.

use api::shown::shown;
use tonic::Status;
use tracing::{info, warn};

/// Logs what came of a call about a volume, but for one that had nothing to do (`Ok(true)`): such calls come again and again.
pub fn outcome(what: &str, volume_id: &str, place: &str, done: Result<bool, Status>) -> Result<(), Status> {
    let (volume_id, target) = (shown(volume_id), shown(place));
    match done {
        Ok(true) => Ok(()),
        Ok(false) => {
            info!(event = "csi.volume", %volume_id, %target, "{what}");
            Ok(())
        }
        Err(error) => {
            warn!(event = "csi.refused", %volume_id, %target, code = ?error.code(), "not {what}: {}", error.message());
            Err(error)
        }
    }
}
