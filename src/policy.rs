//! What is to be done for a request, what its helper is granted, and whether the caller may have it.
//!
//! Runs in the mounter; pure. A [`Plan`] is made of a request and the settings of its type, and holds the very [`Grant`]
//! that the broker checks against. [`authorize`] is a separate question, which is asked at the entrances only.

mod authorize;
mod grant;
mod idmap;
mod plan;

pub use authorize::{Denied, Origin, authorize, authorize_place};
pub use grant::{Grant, GrantedTypes};
pub use plan::{ChangeError, Plan, PlanError};
