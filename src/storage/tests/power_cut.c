// Simulates a power cut for one process (preloaded into it).
//
// Every write to a file below CUT_DIR is remembered with the bytes it replaced, until a sync of
// that file succeeds. When the file CUT_FLAG appears, CUT_PERCENT of the writes that were not
// synced are undone, newest first, and the process ends at once. sync_file_range is no sync.
// With CUT_LYING_DISK set, syncs are ignored: what a disk does that lies about them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct write_record {
    off_t offset;
    size_t length, old_length;
    char *old;
    struct write_record *older;
} write_record;

typedef struct tracked_file {
    dev_t device;
    ino_t inode;
    char path[512];
    off_t synced_size;
    write_record *newest;
    struct tracked_file *next;
} tracked_file;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static tracked_file *files;
static const char *flag, *dir;
static int percent = 50, lying_disk;
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int), (*real_fdatasync)(int);

static void undo(int fd, const write_record *record) {
    struct stat now;
    if (record->old_length) real_pwrite(fd, record->old, record->old_length, record->offset);
    off_t grown = record->offset + (off_t)record->old_length;
    if (record->old_length < record->length && !fstat(fd, &now) && grown < now.st_size) {
        size_t length = record->length - record->old_length;
        char *zeros = calloc(1, length);
        real_pwrite(fd, zeros, length, grown);
        free(zeros);
    }
}

static void cut(void) {
    unsigned seed = (unsigned)time(0) ^ (unsigned)getpid();
    for (tracked_file *file = files; file; file = file->next) {
        int fd = open(file->path, O_RDWR);
        if (fd < 0) continue;
        struct stat now;
        if (!fstat(fd, &now) && now.st_ino == file->inode) {
            for (write_record *record = file->newest; record; record = record->older)
                if ((int)(rand_r(&seed) % 100) < percent) undo(fd, record);
            if (percent == 100 && ftruncate(fd, file->synced_size)) _exit(1);
        }
        close(fd);
    }
    _exit(137);
}

static void *watch(void *unused) {
    for (;;) {
        if (access(flag, F_OK) == 0) {
            pthread_mutex_lock(&lock);
            cut();
        }
        struct timespec pause = {0, 300000};
        nanosleep(&pause, 0);
    }
    return unused;
}

__attribute__((constructor)) static void start(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    dir = getenv("CUT_DIR");
    flag = getenv("CUT_FLAG");
    lying_disk = getenv("CUT_LYING_DISK") != 0;
    if (getenv("CUT_PERCENT")) percent = atoi(getenv("CUT_PERCENT"));
    pthread_t thread;
    if (dir && flag) pthread_create(&thread, 0, watch, 0);
}

static tracked_file *find(int fd) {
    struct stat now;
    if (!dir || !flag || fstat(fd, &now) || !S_ISREG(now.st_mode)) return 0;
    for (tracked_file *file = files; file; file = file->next)
        if (file->device == now.st_dev && file->inode == now.st_ino) return file;
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, dir, strlen(dir))) return 0;
    tracked_file *file = calloc(1, sizeof *file);
    file->device = now.st_dev;
    file->inode = now.st_ino;
    file->synced_size = now.st_size;
    strcpy(file->path, path);
    file->next = files;
    return files = file;
}

static void remember(tracked_file *file, size_t length, off_t offset) {
    write_record *record = malloc(sizeof *record);
    *record = (write_record){.offset = offset, .length = length, .old = malloc(length), .older = file->newest};
    int fd = open(file->path, O_RDONLY);
    ssize_t found = fd < 0 ? 0 : real_pread(fd, record->old, length, offset);
    if (fd >= 0) close(fd);
    record->old_length = found > 0 ? (size_t)found : 0;
    file->newest = record;
}

static void synced(int fd) {
    tracked_file *file = find(fd);
    if (!file || lying_disk) return;
    while (file->newest) {
        write_record *record = file->newest;
        file->newest = record->older;
        free(record->old);
        free(record);
    }
    struct stat now;
    if (!fstat(fd, &now)) file->synced_size = now.st_size;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    pthread_mutex_lock(&lock);
    tracked_file *file = find(fd);
    if (file) remember(file, length, offset);
    ssize_t written = real_pwrite(fd, bytes, length, offset);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (fd <= 2) return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    tracked_file *file = find(fd);
    if (file) {
        struct stat now;
        int appends = (fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &now);
        remember(file, length, appends ? now.st_size : lseek(fd, 0, SEEK_CUR));
    }
    ssize_t written = real_write(fd, bytes, length);
    pthread_mutex_unlock(&lock);
    return written;
}

int fsync(int fd) {
    pthread_mutex_lock(&lock);
    int failed = real_fsync(fd);
    if (!failed) synced(fd);
    pthread_mutex_unlock(&lock);
    return failed;
}

int fdatasync(int fd) {
    pthread_mutex_lock(&lock);
    int failed = real_fdatasync(fd);
    if (!failed) synced(fd);
    pthread_mutex_unlock(&lock);
    return failed;
}
