//! What `doctor` finds.

pub(super) use show::document::{Finding as Found, Level};
pub(super) use show::findings::Trial;
