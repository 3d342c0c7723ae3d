//! The C shim's functions, see `shim/kernel.c`: reads of kernel structures with CO-RE relocations.
//!
//! Pointers are opaque here. All of them are inlined at link time, so none is ever really called.

use aion_probe_types::layout::Cred;

macro_rules! opaque {
    ($($name:ident),*) => { $(#[repr(C)] pub struct $name { _private: [u8; 0] })* };
}
opaque!(Task, Binprm, Regs, File, KernelCred, Path, Dentry);

unsafe extern "C" {
    pub fn shim_add(counter: *mut u64, n: u64);
    pub fn shim_swap(word: *mut u64, old: u64, new: u64) -> u64;
    /// The same number, of which the compiler knows nothing: it makes no branch of it.
    pub fn shim_hide(number: u64) -> u64;
    pub fn shim_current() -> *const Task;
    pub fn shim_task_cgroup(task: *const Task) -> u64;
    pub fn shim_task_pid(task: *const Task) -> u32;
    pub fn shim_task_tgid(task: *const Task) -> u32;
    pub fn shim_task_ppid(task: *const Task) -> u32;
    pub fn shim_task_start(task: *const Task) -> u64;
    pub fn shim_task_no_new_privs(task: *const Task) -> u32;
    pub fn shim_task_comm(task: *const Task, to: *mut u8);
    pub fn shim_task_ns_pid(task: *const Task) -> u32;
    pub fn shim_task_uid(task: *const Task) -> u32;
    pub fn shim_task_cred(task: *const Task, to: *mut Cred);
    pub fn shim_cred(cred: *const KernelCred, to: *mut Cred);
    pub fn shim_group_dead(task: *const Task) -> u32;
    pub fn shim_exit_status(task: *const Task) -> u32;
    pub fn shim_oom_victim(task: *const Task) -> u32;
    pub fn shim_arg_start(task: *const Task) -> u64;
    pub fn shim_arg_end(task: *const Task) -> u64;
    pub fn shim_bprm_filename(bprm: *const Binprm) -> u64;
    pub fn shim_exec_origin(task: *const Task, bprm: *const Binprm) -> u32;
    pub fn shim_regs_nr(regs: *const Regs) -> u64;
    pub fn shim_regs_args(regs: *const Regs, to: *mut u64);
    pub fn shim_probe_task_cgroup(task: *const Task) -> u64;
    pub fn shim_probe_task_tgid(task: *const Task) -> u32;
    pub fn shim_file_write(file: *const File) -> u32;
    pub fn shim_file_flags(file: *const File) -> u32;
    pub fn shim_file_mode(file: *const File) -> u32;
    pub fn shim_file_ino(file: *const File) -> u64;
    pub fn shim_file_dev(file: *const File) -> u32;
    pub fn shim_file_path(file: *const File, to: *mut u8, size: u32) -> i64;
    pub fn shim_file_uses(file: *const File) -> u32;
    pub fn shim_file_at(file: *const File) -> *const Path;
    pub fn shim_bprm_file(bprm: *const Binprm) -> *const File;
    pub fn shim_path_dentry(path: *const Path) -> *const Dentry;
    pub fn shim_path_root(path: *const Path) -> *const Dentry;
    pub fn shim_dentry_parent(dentry: *const Dentry) -> *const Dentry;
    pub fn shim_dentry_ino(dentry: *const Dentry) -> u64;
    pub fn shim_dentry_dev(dentry: *const Dentry) -> u32;
}
