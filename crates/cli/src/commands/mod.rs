//! The commands of msb. None of them uses another one.

pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod manage;
pub(crate) mod manual;
pub(crate) mod run;
pub(crate) mod volume;
