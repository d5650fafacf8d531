//! A fresh placeholder for a volume that a program of a pod with a user namespace serves, in the place of one whose process has ended.
//!
//! Runs in the mounter, on the thread of a task.

use super::PodVolumeId;
use super::carry_out::revive;
use crate::mounter::Mounter;
use crate::mounter::operation::replace::ReplaceError;
use crate::mounter::placeholders::{RenewError, put_in_place};
use std::path::Path;
use std::sync::PoisonError;

/// Puts a fresh one in the place of the one of this number. If no container had the volume yet, its filesystem has ended with the
/// placeholder, and its program with that: the next one is waited for.
pub fn renew_placeholder(mounter: &Mounter, id: PodVolumeId, number: u64) -> Result<(), RenewError> {
    let turn = mounter.pods.turn(id).ok_or(RenewError::NoVolume)?;
    let shown = {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = mounter.pods.volume(id).ok_or(RenewError::NoVolume)?;
        let filesystem = mounter.pods.filesystem_of(&volume.target).ok_or(RenewError::NoVolume)?;
        let visible = mounter.search.find(filesystem, &mounter.connections).map_err(ReplaceError::Search)?;
        match visible.and_then(|visible| visible.copy_of(Path::new("/"))) {
            Some(tree) => {
                // It is a container's mount, which may be read-only.
                let writable = if volume.read_only { Ok(()) } else { tree.make_writable() };
                writable.map_err(|error| RenewError::Step("copy the volume's mount", error))?;
                put_in_place(mounter, number, tree)?;
                true
            }
            None => {
                mounter.pods.has_ended(id, filesystem);
                false
            }
        }
    };
    if !shown {
        revive(mounter, id);
    }
    Ok(())
}
