/* Fails, or kills the process at, the n-th file call below one folder; loaded with LD_PRELOAD.
 *
 * fault_arm(folder, kinds, first, last, error): from the first to the last of the calls of these
 * kinds (a sum of the numbers below) set errno to `error` and fail; error -1 kills the process
 * before the call, 0 only counts. The counter lies in shared memory: a parent that forked after
 * loading reads what its child has counted. fault_trace(fd): write each counted call there; what
 * else a model of the disk needs (the kinds below 32) is written down too, but never counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, FSYNC = 4, RENAME = 8, UNLINK = 16, MKDIR = 32 };
enum { CREATE = 64, FROM = 128, MAP = 256 }; /* may make a file; what is renamed; mapped to write */

static char folder[4096];
static int kinds, error, trace = -1;
static long first, last;
static atomic_long *seen;

__attribute__((constructor)) static void start(void) {
    seen = mmap(0, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void fault_arm(const char *where, int what, long from, long to, int with) {
    snprintf(folder, sizeof folder, "%s", where);
    first = from, last = to, error = with, kinds = what;
    atomic_store(seen, 0);
}

void fault_trace(int fd) { trace = fd; }

long fault_seen(void) { return atomic_load(seen); }

/* 1 if this call is to fail; errno is set. */
static int fails(int kind, const char *path) {
    size_t length = strlen(folder);
    if (!(kinds & kind) || strncmp(path, folder, length) || (path[length] && path[length] != '/'))
        return 0;
    if (trace >= 0) {
        char line[8300];
        syscall(SYS_write, trace, line, snprintf(line, sizeof line, "%d %s\n", kind, path));
    }
    if (kind >= CREATE) return 0;
    long n = atomic_fetch_add(seen, 1) + 1;
    if (n < first || n > last || !error) return 0;
    if (error < 0) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    errno = error;
    return 1;
}

static int fd_fails(int kind, int fd) {
    char link[64], path[4096];
    if (!(kinds & kind)) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

static int at_fails(int kind, int at, const char *name) {
    char link[64], path[8192];
    if (!(kinds & kind)) return 0;
    if (name[0] == '/') return fails(kind, name);
    int before = errno;
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, path, 4095);
    errno = before;
    if (length < 0) return 0;
    snprintf(path + length, sizeof path - length, "/%s", name);
    return fails(kind, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) {
    MODE(flags)
    if (at_fails(OPEN, AT_FDCWD, path)) return -1;
    if (flags & O_CREAT) at_fails(CREATE, AT_FDCWD, path);
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    if (at_fails(OPEN, AT_FDCWD, path)) return -1;
    if (flags & O_CREAT) at_fails(CREATE, AT_FDCWD, path);
    return REAL(open64)(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    if (at_fails(OPEN, at, path)) return -1;
    if (flags & O_CREAT) at_fails(CREATE, at, path);
    return REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    if (at_fails(OPEN, at, path)) return -1;
    if (flags & O_CREAT) at_fails(CREATE, at, path);
    return REAL(openat64)(at, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
    if (at_fails(OPEN, AT_FDCWD, path)) return NULL;
    if (*mode != 'r') at_fails(CREATE, AT_FDCWD, path);
    return REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    if (at_fails(OPEN, AT_FDCWD, path)) return NULL;
    if (*mode != 'r') at_fails(CREATE, AT_FDCWD, path);
    return REAL(fopen64)(path, mode);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *stream) {
    return fd_fails(WRITE, fileno(stream)) ? 0 : REAL(fwrite)(data, size, n, stream);
}
ssize_t write(int fd, const void *data, size_t n) {
    return fd_fails(WRITE, fd) ? -1 : REAL(write)(fd, data, n);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    return fd_fails(WRITE, fd) ? -1 : REAL(writev)(fd, parts, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return fd_fails(WRITE, fd) ? -1 : REAL(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return fd_fails(WRITE, fd) ? -1 : REAL(pwrite64)(fd, data, n, at);
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) {
    return fd_fails(WRITE, to) ? -1 : REAL(sendfile)(to, from, at, n);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) {
    return fd_fails(WRITE, to) ? -1 : REAL(sendfile64)(to, from, at, n);
}
int ftruncate(int fd, off_t n) { return fd_fails(WRITE, fd) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fd_fails(WRITE, fd) ? -1 : REAL(ftruncate64)(fd, n); }
int posix_fallocate(int fd, off_t at, off_t n) {
    return fd_fails(WRITE, fd) ? errno : REAL(posix_fallocate)(fd, at, n);
}
int posix_fallocate64(int fd, off64_t at, off64_t n) {
    return fd_fails(WRITE, fd) ? errno : REAL(posix_fallocate64)(fd, at, n);
}
int fsync(int fd) { return fd_fails(FSYNC, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fd_fails(FSYNC, fd) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) {
    at_fails(FROM, AT_FDCWD, from);
    return at_fails(RENAME, AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    at_fails(FROM, a, from);
    return at_fails(RENAME, b, to) ? -1 : REAL(renameat)(a, from, b, to);
}
int unlink(const char *path) {
    return at_fails(UNLINK, AT_FDCWD, path) ? -1 : REAL(unlink)(path);
}
int unlinkat(int at, const char *path, int flags) {
    return at_fails(UNLINK, at, path) ? -1 : REAL(unlinkat)(at, path, flags);
}
int rmdir(const char *path) { return at_fails(UNLINK, AT_FDCWD, path) ? -1 : REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) {
    return at_fails(MKDIR, AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}
void *mmap(void *at, size_t n, int what, int flags, int fd, off_t from) {
    if (what & PROT_WRITE && flags & MAP_SHARED && fd >= 0) fd_fails(MAP, fd);
    return REAL(mmap)(at, n, what, flags, fd, from);
}
void *mmap64(void *at, size_t n, int what, int flags, int fd, off64_t from) {
    if (what & PROT_WRITE && flags & MAP_SHARED && fd >= 0) fd_fails(MAP, fd);
    return REAL(mmap64)(at, n, what, flags, fd, from);
}
