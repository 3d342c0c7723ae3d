/* A disk that forgets: preloaded into a writer, it keeps in AION_POWER_DISK what would be left of the files in
 * AION_POWER_ROOT after a power cut. A file's bytes get there when it is synced, its name when the folder is. Files that are
 * removed keep their inode in "grave", so that no number is used twice. sync_file_range promises nothing, so it does nothing here. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096
struct range { off_t from, to; };
static struct file { ino_t inode; int used; struct range *dirty; size_t n, room; } files[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *disk;
static ino_t root_inode;
static size_t root_len;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
	struct stat st;
	root = getenv("AION_POWER_ROOT");
	disk = getenv("AION_POWER_DISK");
	if (!root || !disk || stat(root, &st)) { root = NULL; return; }
	root_inode = st.st_ino;
	root_len = strlen(root);
}

static void die(const char *what) { perror(what); abort(); }

static void at(char *out, const char *what, unsigned long inode) { snprintf(out, 4096, "%s/%s%lu", disk, what, inode); }

static int inside(const char *path) { return root && !strncmp(path, root, root_len) && path[root_len] == '/'; }

static void opened(int fd, const char *path, int flags) {
	struct stat st;
	char copy[4096];
	if (fd < 0 || fd >= FDS || !inside(path) || (flags & O_ACCMODE) == O_RDONLY || fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
	pthread_mutex_lock(&lock);
	files[fd].used = 1;
	files[fd].inode = st.st_ino;
	files[fd].n = 0;
	at(copy, "", st.st_ino);
	if (st.st_size == 0) REAL(unlink)(copy);
	pthread_mutex_unlock(&lock);
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) { \
		va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
		int fd = REAL(name)(path, flags, mode); opened(fd, path, flags); return fd; }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
	int name(int dir, const char *path, int flags, ...) { \
		va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
		int fd = REAL(name)(dir, path, flags, mode); opened(fd, path, flags); return fd; }
OPENAT(openat)
OPENAT(openat64)

static int known(int fd) { return fd >= 0 && fd < FDS && files[fd].used; }

static void wrote(int fd, off_t from, ssize_t length) {
	if (length <= 0 || !known(fd)) return;
	pthread_mutex_lock(&lock);
	struct file *f = &files[fd];
	if (f->n && f->dirty[f->n - 1].to == from) f->dirty[f->n - 1].to += length;
	else {
		if (f->n == f->room) {
			f->room = f->room * 2 + 16;
			f->dirty = realloc(f->dirty, f->room * sizeof *f->dirty);
			if (!f->dirty) die("realloc");
		}
		f->dirty[f->n++] = (struct range){from, from + length};
	}
	pthread_mutex_unlock(&lock);
}

static off_t where(int fd, ssize_t length) { return length > 0 && known(fd) ? lseek(fd, 0, SEEK_CUR) - length : 0; }

ssize_t write(int fd, const void *data, size_t n) { ssize_t r = REAL(write)(fd, data, n); wrote(fd, where(fd, r), r); return r; }
ssize_t writev(int fd, const struct iovec *v, int n) { ssize_t r = REAL(writev)(fd, v, n); wrote(fd, where(fd, r), r); return r; }
ssize_t pwrite(int fd, const void *d, size_t n, off_t o) { ssize_t r = REAL(pwrite)(fd, d, n, o); wrote(fd, o, r); return r; }
ssize_t pwrite64(int fd, const void *d, size_t n, off64_t o) { ssize_t r = REAL(pwrite64)(fd, d, n, o); wrote(fd, o, r); return r; }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { ssize_t r = REAL(pwritev)(fd, v, n, o); wrote(fd, o, r); return r; }

static void names(void) {
	char temporary[4096], final[4096];
	snprintf(temporary, sizeof temporary, "%s/names.new", disk);
	snprintf(final, sizeof final, "%s/names", disk);
	FILE *out = fopen(temporary, "w");
	DIR *dir = opendir(root);
	if (!out || !dir) die("names");
	for (struct dirent *e; (e = readdir(dir));)
		if (e->d_type == DT_REG) fprintf(out, "%lu %s\n", (unsigned long)e->d_ino, e->d_name);
	closedir(dir);
	if (fclose(out) || REAL(rename)(temporary, final)) die("names");
}

static void synced(int fd) {
	char path[4096], data[65536];
	struct stat st;
	if (!root || fstat(fd, &st)) return;
	pthread_mutex_lock(&lock);
	if (S_ISDIR(st.st_mode) && st.st_ino == root_inode) names();
	else if (known(fd)) {
		struct file *f = &files[fd];
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		int in = REAL(open)(path, O_RDONLY | O_CLOEXEC, 0);
		at(path, "", f->inode);
		int out = REAL(open)(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (in < 0 || out < 0) die("copy");
		for (size_t i = 0; i < f->n; i++)
			for (off_t o = f->dirty[i].from; o < f->dirty[i].to;) {
				size_t want = f->dirty[i].to - o > (off_t)sizeof data ? sizeof data : (size_t)(f->dirty[i].to - o);
				ssize_t n = pread(in, data, want, o);
				if (n <= 0) break;
				if (REAL(pwrite)(out, data, n, o) != n) die("copy");
				o += n;
			}
		if (REAL(ftruncate)(out, st.st_size)) die("copy");
		f->n = 0;
		REAL(close)(in);
		REAL(close)(out);
	}
	pthread_mutex_unlock(&lock);
}

int fsync(int fd) { int r = REAL(fsync)(fd); if (!r) synced(fd); return r; }
int fdatasync(int fd) { int r = REAL(fdatasync)(fd); if (!r) synced(fd); return r; }

int close(int fd) {
	if (known(fd)) {
		pthread_mutex_lock(&lock);
		/* What is dirty is lost with the power: nobody can sync it through another descriptor here. */
		files[fd].used = 0;
		files[fd].n = 0;
		pthread_mutex_unlock(&lock);
	}
	return REAL(close)(fd);
}

static void bury(const char *path) {
	struct stat st;
	char grave[4096];
	if (!inside(path) || stat(path, &st) || !S_ISREG(st.st_mode)) return;
	at(grave, "grave/", st.st_ino);
	(void)!REAL(link)(path, grave);
}

int unlink(const char *path) { bury(path); return REAL(unlink)(path); }
int rename(const char *from, const char *to) { bury(to); return REAL(rename)(from, to); }
