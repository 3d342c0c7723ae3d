//! The host side: what runs in the launcher, with its privileges.

pub(crate) mod devices;
pub(crate) mod exec;
pub(crate) mod forker;
mod idmap;
pub(crate) mod image;
pub(crate) mod init_process;
pub(crate) mod launch;
mod memory_files;
pub mod mounts;
pub(crate) mod slot;
pub(crate) mod spawner;
mod template;
mod template_etc;
