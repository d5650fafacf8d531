//! A request's plan, the grant of its helper, and whether the caller may have it.
//!
//! Runs in the mounter; pure. A [`Plan`] is made of a request and the settings of its type, and holds the [`Grant`]
//! that the judge compares calls with. [`authorize()`] is a separate question, which is asked when a request arrives.

mod authorize;
mod entrance;
mod grant;
mod idmap;
pub mod known_types;
mod plan;
mod rules;
mod show;
mod shown_options;
mod sources;

pub use authorize::{Denied, authorize, authorize_place, authorize_program, grant_of_program, rules_of};
pub use entrance::{NotServed, is_seen, serves};
pub use grant::{Grant, GrantedTypes};
pub use plan::{ChangeError, Plan, PlanError, below_root, normal};
pub use rules::Refusal;
pub use show::show;
pub use shown_options::{line_without_secrets, source_without_secrets, without_secrets, words_without_secrets_of};
