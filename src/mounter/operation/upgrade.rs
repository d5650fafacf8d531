//! Moving a volume from a helper of an earlier container's image to one of this container's.
//!
//! A helper's root is that of the container that it was started in. When the container is gone its layers still serve, until the image is
//! collected: then programs and libraries that the helper loads late are not found any more, and what it has open alone goes on. So a
//! volume whose helper runs from another image is swapped, a few at a time ([`to_do`](crate::mounter::to_do)).
//!
//! Runs in the mounter, each on a thread of its own.

use super::replace::{Cause, ReplaceError, Replaced, replace};
use crate::mounter::Mounter;
use crate::mounter::to_do::UPGRADE_AGAIN;
use crate::mounter::volume::VolumeId;
use crate::observe::events;
use crate::observe::metrics::Operation;
use api::exit::chain;
use linux::mount_table::Mount;
use std::path::Path;
use std::time::Instant;
use tracing::{info, warn};

/// Whether two mount namespaces, which have these mount tables, have the same root, or roots of the same layers: those of two containers of one
/// image. Of roots that are not made of layers no more is known than that they are two.
pub fn have_same_image(one: &[Mount], other: &[Mount]) -> bool {
    let (Some(one), Some(other)) = (root(one), root(other)) else { return false };
    let layers = layers(one);
    (one.device, &one.root) == (other.device, &other.root)
        || one.fstype == "overlay" && other.fstype == "overlay" && !layers.is_empty() && layers == self::layers(other)
}

fn root(table: &[Mount]) -> Option<&Mount> {
    table.iter().rfind(|mount| mount.target == Path::new("/"))
}

/// `lowerdir=A:B`, or `lowerdir+=A,lowerdir+=B,datadir+=C` (Linux 6.8).
fn layers(overlay: &Mount) -> Vec<&str> {
    let is_layer = |option: &&str| option.starts_with("lowerdir") || option.starts_with("datadir");
    overlay.super_options.split(',').filter(is_layer).collect()
}

/// Swaps a volume, or sees to it that it is tried again.
pub fn upgrade(mounter: &Mounter, id: VolumeId) {
    let Some(volume) = mounter.registry.volume(id) else { return };
    let _span = volume.span().entered();
    let began = Instant::now();
    let result = replace(mounter, id, Cause::Upgrade);
    mounter.metrics.count(Operation::swap, began, &result);
    match result {
        Ok(Replaced::Shown { places, .. }) => info!(
            event = events::UPGRADED,
            places,
            "a helper of this container's image serves the volume; the earlier one serves what is open, until it is closed"
        ),
        Ok(Replaced::Gone) | Err(ReplaceError::NoVolume) => {}
        Err(ReplaceError::NotKnown(note)) => {
            warn!(event = events::NOT_UPGRADED, "it keeps its helper of an earlier container's image: {note}");
        }
        Err(error) => {
            let next_try_seconds = UPGRADE_AGAIN.as_secs_f64();
            let error = chain(&error);
            warn!(
                event = events::NOT_UPGRADED,
                next_try_seconds, "it keeps its helper of an earlier container's image for now: {error}"
            );
            mounter.to_do.upgrade_again(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::mount_table::parse;

    #[test]
    fn an_image_is_told_by_its_layers() {
        let table = |device: u32, rest: &str| parse(format!("1 0 0:{device} / / ro - {rest}\n").as_bytes());
        let overlay = |device, layers: &str| table(device, &format!("overlay overlay rw,{layers},upperdir=/u{device}"));
        let same = |one: &[Mount], other: &[Mount]| have_same_image(one, other);
        assert!(same(&overlay(7, "lowerdir=/a:/b"), &overlay(8, "lowerdir=/a:/b")), "two containers of one image");
        assert!(!same(&overlay(7, "lowerdir=/a:/b"), &overlay(8, "lowerdir=/c:/b")));
        assert!(same(&overlay(7, "lowerdir+=/a,lowerdir+=/b"), &overlay(8, "lowerdir+=/a,lowerdir+=/b")));
        assert!(!same(&overlay(7, "lowerdir+=/a,lowerdir+=/b"), &overlay(8, "lowerdir+=/a,lowerdir+=/c")));
        assert!(same(&table(7, "btrfs /dev/x rw"), &table(7, "btrfs /dev/x rw")), "one root");
        assert!(!same(&table(7, "btrfs /dev/x rw"), &table(8, "btrfs /dev/x rw")));
        let directory = |root: &str| parse(format!("1 0 0:7 {root} / ro - tmpfs x rw\n").as_bytes());
        assert!(!same(&directory("/1"), &directory("/2")) && !same(&directory("/1//deleted"), &directory("/1")));
        assert!(!same(&table(7, "overlay overlay rw"), &table(8, "overlay overlay rw")), "its layers are not told");
        // What is mounted on top of it counts.
        let covered = [overlay(7, "lowerdir=/a"), overlay(9, "lowerdir=/c")].concat();
        assert!(!same(&covered, &overlay(8, "lowerdir=/a")) && !same(&[], &covered));
    }
}
