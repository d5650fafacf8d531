//! The CSI driver: kubelet's calls for volumes, asked of the mounter.
//!
//! Runs in a container of its own, as a user of its own, without any privilege: it touches no mount. It asks the mounter as every
//! caller does, at a socket where nothing can be asked but what CSI needs. Nothing is kept between two calls, here or on disk: what is
//! mounted where is the mounter's to know, so a call may come twice, at once with others, late, or after a restart of either side.
//!
//! One thread does all of it; a call that kubelet has given up is dropped, and with it its connection to the mounter, which
//! undoes what it was about.
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`] | the command line |
//! | [`places`] | the paths on the node, and which of them may be asked for |
//! | [`volume`], [`of_program`], [`group`] | from kubelet's words to a request for the mounter; pure |
//! | [`mounter`] | the connection to the mounter |
//! | [`errors`] | from what came of it to gRPC's codes |
//! | [`class`], [`volume_id`] | what a StorageClass asks for, and the id of what came of it; pure |
//! | [`identity`], [`node`], [`controller`], [`registration`] | the services |
//! | [`api_server`], [`taint`], [`conditions`] | what Kubernetes' API server is asked for, where the driver's account may ask it |
//! | [`log`] | what is logged of calls |
//! | [`directories`] | those that the sockets are in; made by a program of its own, with the privilege for it |
//! | [`socket`], [`serve`] | the sockets that kubelet connects to |
//! | [`authority`] | what older kubelets send and HTTP/2 does not allow |

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api_server;
pub mod authority;
pub mod class;
pub mod conditions;
pub mod controller;
pub mod directories;
pub mod errors;
pub mod group;
pub mod identity;
pub mod list;
pub mod log;
pub mod mounter;
pub mod node;
pub mod of_program;
pub mod places;
pub mod registration;
pub mod serve;
pub mod settings;
pub mod socket;
pub mod taint;
pub mod volume;
pub mod volume_id;

/// The Container Storage Interface, as far as it is served.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "it is generated")]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// Kubelet's registration of drivers.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "it is generated")]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}
