//! What is asked, understood once; what its helper is granted; and whether the caller may have it.
//!
//! Pure. A [`Plan`] is made of a request's words and its type's settings, and holds the very [`Grant`] that the broker
//! goes by. [`authorize`] is a question of its own, asked at the entrances only.

mod authorize;
mod grant;
mod plan;

pub use authorize::{Denied, Origin, authorize};
pub use grant::{Grant, GrantedTypes};
pub use plan::{ChangeError, Plan, PlanError};
