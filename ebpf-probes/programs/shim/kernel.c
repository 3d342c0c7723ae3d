/*
 * Reads of kernel structures for the Rust programs. rustc emits no CO-RE relocations, clang does: each
 * structure below names only the members that are read, and the loader finds them by name in the running
 * kernel's BTF. Everything is inlined into the programs by bpf-linker.
 *
 * A plain member access is a load that the verifier checks (pointers that come from a BTF tracepoint, an LSM
 * hook or bpf_get_current_task_btf); where that is not possible, bpf_probe_read_kernel is used.
 */
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#ifndef __TARGET_ARCH_x86
#error "only x86-64: pt_regs below is of that architecture"
#endif

#define SHIM __attribute__((always_inline))
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;
typedef struct {
	__u32 val;
} kgid_t;
typedef struct {
	__u64 val;
} kernel_cap_t;
typedef struct {
	int counter;
} atomic_t;

struct kernfs_node {
	__u64 id;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};
struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t euid;
	kgid_t egid;
	kernel_cap_t cap_effective;
};
struct upid {
	int nr;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};
struct signal_struct {
	atomic_t live;
	unsigned int flags;
	int group_exit_code;
	struct mm_struct *oom_mm;
};
struct files_struct;
struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	__u64 start_boottime;
	unsigned long atomic_flags;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct mm_struct *mm;
	struct signal_struct *signal;
	const struct cred *cred;
	struct css_set *cgroups;
	struct files_struct *files;
	char comm[16];
};
struct file;
struct linux_binprm {
	const char *filename;
	struct file *file;
};
struct pt_regs {
	unsigned long r10;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};
struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
};
struct inode {
	__u16 i_mode;
	unsigned int i_nlink;
	unsigned long i_ino;
	struct super_block *i_sb;
};
struct dentry;
struct vfsmount {
	struct dentry *mnt_root;
	int mnt_flags;
};
struct qstr {
	const unsigned char *name;
};
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct sock_common {
	unsigned short skc_family;
};
struct sock {
	struct sock_common __sk_common;
};
struct socket {
	struct sock *sk;
};

#pragma clang attribute pop

/* Helper numbers are kernel ABI. */
static long (*const probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const d_path)(struct path *path, char *buf, __u32 size) = (void *)147;
static struct task_struct *(*const current_task)(void) = (void *)158;

#define SIGNAL_GROUP_EXIT 4
#define PFA_NO_NEW_PRIVS 1 /* bit 0 */
#define FMODE_READ 1
#define FMODE_WRITE 2
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define AF_INET 2
#define AF_INET6 10
#define MNT_READONLY 0x40
#define SB_RDONLY 1
/* layout::head_flag */
#define STDIN_SOCKET (1 << 5)
#define STDOUT_SOCKET (1 << 6)
#define UNLINKED (1 << 7)
#define MEMFD (1 << 8)
#define WRITABLE (1 << 9)

/* A member of a structure whose pointer the verifier does not know. What cannot be read is 0. */
#define READ(to, member) probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(member)))

struct shim_cred {
	__u32 uid, euid, gid, egid;
	__u64 cap_effective;
};

/* rustc knows no atomic read-modify-write for this target. */
SHIM void shim_add(__u64 *counter, __u64 n)
{
	__sync_fetch_and_add(counter, n);
}

/* What was there before; it was replaced if that is `old`. */
SHIM __u64 shim_swap(__u64 *word, __u64 old, __u64 new)
{
	return __sync_val_compare_and_swap(word, old, new);
}

/* The same number, of which the compiler knows nothing: it makes no branch of it. */
SHIM __u64 shim_hide(__u64 number)
{
	asm volatile("" : "+r"(number));
	return number;
}

SHIM struct task_struct *shim_current(void)
{
	return current_task();
}

SHIM __u64 shim_task_cgroup(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

SHIM __u32 shim_task_pid(struct task_struct *task)
{
	return task->pid;
}

SHIM __u32 shim_task_tgid(struct task_struct *task)
{
	return task->tgid;
}

SHIM __u32 shim_task_ppid(struct task_struct *task)
{
	return task->real_parent->tgid;
}

SHIM __u64 shim_task_start(struct task_struct *task)
{
	return task->group_leader->start_boottime;
}

SHIM __u32 shim_task_no_new_privs(struct task_struct *task)
{
	return task->atomic_flags & PFA_NO_NEW_PRIVS;
}

SHIM void shim_task_comm(struct task_struct *task, __u8 *to)
{
	const char *comm = __builtin_preserve_access_index(&task->comm[0]);

	probe_read_kernel(to, 16, comm);
}

/* The pid as the task's own pid namespace numbers it: the last of pid.numbers[]. */
SHIM __u32 shim_task_ns_pid(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	unsigned int level = pid->level;
	const struct upid *numbers = __builtin_preserve_access_index(&pid->numbers[0]);
	__u32 stride = __builtin_preserve_type_info(*(struct upid *)0, 1);
	int nr = 0;

	if (level > 32)
		return 0;
	probe_read_kernel(&nr, sizeof(nr), (const __u8 *)numbers + (__u64)level * stride);
	return nr;
}

SHIM __u32 shim_task_uid(struct task_struct *task)
{
	return task->cred->uid.val;
}

SHIM void shim_cred(const struct cred *cred, struct shim_cred *to)
{
	/* Two u32 before 6.3, one u64 since: the same 8 bytes in little endian. */
	const void *caps = __builtin_preserve_access_index(&cred->cap_effective);

	to->uid = cred->uid.val;
	to->euid = cred->euid.val;
	to->gid = cred->gid.val;
	to->egid = cred->egid.val;
	to->cap_effective = 0;
	probe_read_kernel(&to->cap_effective, 8, caps);
}

SHIM void shim_task_cred(struct task_struct *task, struct shim_cred *to)
{
	shim_cred(task->cred, to);
}

/* Non-zero when this is the last thread of its process to exit. */
SHIM __u32 shim_group_dead(struct task_struct *task)
{
	return task->signal->live.counter == 0;
}

SHIM __u32 shim_exit_status(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;

	if (signal->flags & SIGNAL_GROUP_EXIT)
		return signal->group_exit_code;
	return task->exit_code;
}

SHIM __u32 shim_oom_victim(struct task_struct *task)
{
	return task->signal->oom_mm != 0;
}

SHIM __u64 shim_arg_start(struct task_struct *task)
{
	return task->mm->arg_start;
}

SHIM __u64 shim_arg_end(struct task_struct *task)
{
	return task->mm->arg_end;
}

SHIM __u64 shim_bprm_filename(struct linux_binprm *bprm)
{
	return (__u64)bprm->filename;
}

/* Whether a file is a socket of IPv4 or IPv6. Pairs of Unix sockets are how programs talk to their children. */
SHIM __u32 shim_is_inet(struct file *file)
{
	struct inode *inode = 0;
	struct socket *socket = 0;
	struct sock *sock = 0;
	__u16 mode = 0, family = 0;

	if (!file)
		return 0;
	READ(inode, file->f_inode);
	READ(mode, inode->i_mode);
	if ((mode & S_IFMT) != S_IFSOCK)
		return 0;
	READ(socket, file->private_data);
	READ(sock, socket->sk);
	READ(family, sock->__sk_common.skc_family);
	return family == AF_INET || family == AF_INET6;
}

/* Where a new program comes from, and what its standard input and output are; bits of layout::head_flag. */
SHIM __u32 shim_exec_origin(struct task_struct *task, struct linux_binprm *bprm)
{
	struct file *file = 0, *io[2] = { 0, 0 }, **fds = 0;
	struct files_struct *files = 0;
	struct fdtable *table = 0;
	struct inode *inode = 0;
	struct super_block *sb = 0;
	struct vfsmount *mnt = 0;
	struct dentry *dentry = 0;
	const unsigned char *name = 0;
	unsigned long sb_flags = 0;
	int mnt_flags = 0;
	__u32 links = 1, flags = 0;
	__u64 head = 0;

	READ(file, bprm->file);
	READ(inode, file->f_inode);
	READ(links, inode->i_nlink);
	if (inode && !links) {
		flags |= UNLINKED;
		READ(dentry, file->f_path.dentry);
		READ(name, dentry->d_name.name);
		probe_read_kernel(&head, 6, name);
		if (head == 0x3a64666d656dULL) /* "memfd:" */
			flags |= MEMFD;
	}
	READ(mnt, file->f_path.mnt);
	READ(mnt_flags, mnt->mnt_flags);
	READ(sb, inode->i_sb);
	READ(sb_flags, sb->s_flags);
	if (mnt && !(mnt_flags & MNT_READONLY) && !(sb_flags & SB_RDONLY))
		flags |= WRITABLE;

	READ(files, task->files);
	READ(table, files->fdt);
	READ(fds, table->fd);
	/* A table has room for 64 at least. */
	probe_read_kernel(io, sizeof(io), fds);
	if (shim_is_inet(io[0]))
		flags |= STDIN_SOCKET;
	if (shim_is_inet(io[1]))
		flags |= STDOUT_SOCKET;
	return flags;
}

SHIM __u64 shim_regs_nr(struct pt_regs *regs)
{
	return regs->orig_ax;
}

SHIM void shim_regs_args(struct pt_regs *regs, __u64 *to)
{
	to[0] = regs->di;
	to[1] = regs->si;
	to[2] = regs->dx;
	to[3] = regs->r10;
}

/* Plain tracepoints give untrusted pointers: read step by step. */
SHIM __u64 shim_probe_task_cgroup(struct task_struct *task)
{
	struct css_set *set = 0;
	struct cgroup *cgroup = 0;
	struct kernfs_node *kn = 0;
	__u64 id = 0;

	probe_read_kernel(&set, 8, __builtin_preserve_access_index(&task->cgroups));
	probe_read_kernel(&cgroup, 8, __builtin_preserve_access_index(&set->dfl_cgrp));
	probe_read_kernel(&kn, 8, __builtin_preserve_access_index(&cgroup->kn));
	probe_read_kernel(&id, 8, __builtin_preserve_access_index(&kn->id));
	return id;
}

SHIM __u32 shim_probe_task_tgid(struct task_struct *task)
{
	__u32 tgid = 0;

	probe_read_kernel(&tgid, 4, __builtin_preserve_access_index(&task->tgid));
	return tgid;
}

SHIM __u32 shim_file_write(struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

SHIM __u32 shim_file_flags(struct file *file)
{
	return file->f_flags;
}

SHIM __u32 shim_file_mode(struct file *file)
{
	return file->f_inode->i_mode;
}

SHIM __u64 shim_file_ino(struct file *file)
{
	return file->f_inode->i_ino;
}

SHIM __u32 shim_file_dev(struct file *file)
{
	return file->f_inode->i_sb->s_dev;
}

SHIM long shim_file_path(struct file *file, char *to, __u32 size)
{
	return d_path(&file->f_path, to, size);
}

SHIM __u32 shim_file_uses(struct file *file)
{
	return file->f_mode & (FMODE_READ | FMODE_WRITE);
}

/*
 * The way from a file up to the root of its mount is read with bpf_probe_read_kernel, not by plain loads: the same instruction
 * of a loop would meet pointers that verifiers since 6.2 tell apart (trusted at first, then not).
 */
SHIM const struct path *shim_file_at(struct file *file)
{
	return __builtin_preserve_access_index(&file->f_path);
}

SHIM struct file *shim_bprm_file(struct linux_binprm *bprm)
{
	struct file *file = 0;

	READ(file, bprm->file);
	return file;
}

SHIM struct dentry *shim_path_dentry(const struct path *path)
{
	struct dentry *dentry = 0;

	READ(dentry, path->dentry);
	return dentry;
}

SHIM struct dentry *shim_path_root(const struct path *path)
{
	struct vfsmount *mnt = 0;
	struct dentry *root = 0;

	READ(mnt, path->mnt);
	READ(root, mnt->mnt_root);
	return root;
}

SHIM struct dentry *shim_dentry_parent(const struct dentry *dentry)
{
	struct dentry *parent = 0;

	READ(parent, dentry->d_parent);
	return parent;
}

/* 0 of a name that nothing has yet. */
SHIM __u64 shim_dentry_ino(const struct dentry *dentry)
{
	struct inode *inode = 0;
	unsigned long ino = 0;

	READ(inode, dentry->d_inode);
	READ(ino, inode->i_ino);
	return ino;
}

SHIM __u32 shim_dentry_dev(const struct dentry *dentry)
{
	struct super_block *sb = 0;
	__u32 dev = 0;

	READ(sb, dentry->d_sb);
	READ(dev, sb->s_dev);
	return dev;
}
