//! What is done to volumes, each from beginning to end.
//!
//! Runs in the mounter, each operation on a thread of its own. Mounting, healing and swapping are one movement: [`bring_up`] a
//! fresh helper and wait until it is [`ready`], then show its filesystem: at one target ([`mount`]), or in the place of an
//! old one everywhere ([`replace`]). [`heal`], [`hang`] and [`servers`] decide when. [`bind`] and [`mod@unmount`] show a volume at one
//! more [`place`], and at one less; for pods with a user namespace it is a [`placeholder`] that is shown. [`mod@stats`] says how a
//! volume is. [`directory`] brings a filesystem up for some work in it, and shows it nowhere.

pub mod abandoned;
pub mod bind;
pub mod bring_up;
pub mod directory;
pub mod hang;
pub mod heal;
pub mod heirs;
pub mod kill;
mod let_go;
pub mod mount;
mod own_process;
pub mod place;
pub mod placeholder;
pub mod ready;
pub mod replace;
pub mod servers;
pub mod stats;
pub mod tokens;
pub mod unmount;
pub mod upgrade;
