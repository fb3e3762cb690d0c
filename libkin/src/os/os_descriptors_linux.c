/* Descriptors on Linux: keeps the second half of os_process.h.
 *
 * Messages go over SOCK_SEQPACKET socket pairs, with descriptors attached as
 * SCM_RIGHTS: the kernel holds those while they are under way, so the sender
 * may close them, or die, at once.
 *
 * A lifeline is a pipe on whose end of file the kernel sends a signal.  It does
 * that per open file, not per pipe: each process that binds one must open the
 * pipe anew (through /proc), or the last to bind would take the signal away
 * from those before it. */
#include "os/os_process.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"
#include "os/os_deadline_linux.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* -- Close and duplicate --------------------------------------------------------- */

void kin__os_close(int fd) {
    close(fd);
}

int kin__os_duplicate(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

struct directory_entry { /* what getdents64 gives */
    uint64_t inode;
    int64_t next;
    unsigned short len;
    unsigned char type;
    char name[];
};

/* A number from 0 on, or -1: atoi() without what it may allocate or look up. */
static long parse_number(const char *text) {
    long value = 0;
    if (*text == 0) return -1;
    for (; *text != 0; text++) {
        if (*text < '0' || *text > '9') return -1;
        value = value * 10 + (*text - '0');
    }
    return value;
}

static void close_listed(int directory, unsigned first, unsigned last) {
    _Alignas(struct directory_entry) char buffer[2048];
    long got;
    while ((got = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < got;) {
            struct directory_entry *entry = (struct directory_entry *)(buffer + at);
            long fd = parse_number(entry->name);
            if (fd >= (long)first && fd <= (long)last && fd != directory) close((int)fd);
            at += entry->len;
        }
    }
}

void kin__os_close_range_slow(unsigned first, unsigned last) {
    int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        close_listed(directory, first, last);
        close(directory);
        return;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= last) {
        last = (unsigned)limit.rlim_cur;
    }
    for (unsigned fd = first; fd <= last; fd++) close((int)fd);
}

static void close_range_of(unsigned first, unsigned last) {
    if (syscall(SYS_close_range, first, last, 0) != 0) kin__os_close_range_slow(first, last);
}

void kin__os_close_others(const int *keep, size_t count) {
    unsigned first = 3;
    for (size_t i = 0; i < count; i++) {
        unsigned fd = (unsigned)keep[i];
        if (fd > first) close_range_of(first, fd - 1);
        first = fd + 1;
    }
    close_range_of(first, INT32_MAX);
}

/* -- Wait for a few ---------------------------------------------------------------- */

kin_err kin__os_poll(struct kin__os_poll *fds, size_t count, kin_deadline deadline) {
    struct pollfd polled[KIN__OS_POLL_MAX];
    struct timespec space;
    for (size_t i = 0; i < count; i++) {
        polled[i].fd = fds[i].fd;
        polled[i].events = (short)((fds[i].want & KIN__OS_READ ? POLLIN : 0) |
                                   (fds[i].want & KIN__OS_WRITE ? POLLOUT : 0));
        polled[i].revents = 0;
    }
    int ready = ppoll(polled, count, time_left(deadline, &space), NULL);
    if (ready < 0) return -errno;
    for (size_t i = 0; i < count; i++) {
        short got = polled[i].revents;
        fds[i].gone = (got & (POLLHUP | POLLERR | POLLNVAL)) != 0;
        fds[i].got = fds[i].gone ? fds[i].want
                                 : (unsigned char)((got & POLLIN ? KIN__OS_READ : 0) |
                                                   (got & POLLOUT ? KIN__OS_WRITE : 0));
    }
    return ready == 0 ? -ETIMEDOUT : 0;
}

kin_err kin__os_sleep(kin_deadline deadline) {
    return kin__os_poll(NULL, 0, deadline);
}

/* -- Messages ------------------------------------------------------------------------ */

kin_err kin__os_socket_pair(int ends[2]) {
    int made[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, made) != 0) return -errno;
    ends[0] = made[0];
    ends[1] = made[1];
    return 0;
}

kin_err kin__os_socket_name_senders(int sock) {
    int on = 1;
    if (setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return -errno;
    return 0;
}

int64_t kin__os_uid(void) {
    return getuid();
}

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(KIN__OS_MESSAGE_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static struct cmsghdr *attach(struct msghdr *header, struct cmsghdr *part, int type,
                              const void *data, size_t len) {
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = type;
    part->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(part), data, len);
    return CMSG_NXTHDR(header, part);
}

static void attach_all(struct msghdr *header, union control *control,
                       const struct kin__os_message *message) {
    size_t fds_len = message->fd_count * sizeof(int);
    size_t room = (fds_len ? CMSG_SPACE(fds_len) : 0) +
                  (message->named ? CMSG_SPACE(sizeof(struct ucred)) : 0);
    if (room == 0) return;
    memset(control->bytes, 0, room);
    header->msg_control = control->bytes;
    header->msg_controllen = room;
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    if (message->named) {
        struct ucred own = {getpid(), getuid(), getgid()};
        part = attach(header, part, SCM_CREDENTIALS, &own, sizeof own);
    }
    if (fds_len) attach(header, part, SCM_RIGHTS, message->fds, fds_len);
}

kin_err kin__os_message_send(int sock, const struct kin__os_message *message, bool wait) {
    if (message->fd_count > KIN__OS_MESSAGE_FDS) return -E2BIG;
    struct iovec parts[2] = {{message->head, message->head_len},
                             {message->body, message->body_len}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = message->body_len ? 2 : 1};
    union control control;
    attach_all(&header, &control, message);

    for (;;) {
        if (sendmsg(sock, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return 0;
        if (errno == ECONNRESET) return -EPIPE;
        if (errno != EAGAIN || !wait) return -errno;
        struct kin__os_poll room = {.fd = sock, .want = KIN__OS_WRITE};
        kin_err err = kin__os_poll(&room, 1, KIN_FOREVER);
        if (err) return err;
    }
}

static void detach(struct msghdr *header, struct kin__os_message *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL;
         part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET) continue;
        size_t len = part->cmsg_len - CMSG_LEN(0);
        if (part->cmsg_type == SCM_RIGHTS) {
            memcpy(message->fds + message->fd_count, CMSG_DATA(part), len);
            message->fd_count += len / sizeof(int);
        } else if (part->cmsg_type == SCM_CREDENTIALS) {
            struct ucred sender;
            memcpy(&sender, CMSG_DATA(part), sizeof sender);
            message->sender_uid = sender.uid;
        }
    }
}

kin_err kin__os_message_recv(int sock, struct kin__os_message *message) {
    struct iovec parts[2] = {{message->head, message->head_len},
                             {message->body, message->body_len}};
    union control control;
    struct msghdr header = {
        .msg_iov = parts,
        .msg_iovlen = message->body_len ? 2 : 1,
        .msg_control = message->fds ? control.bytes : NULL,
        .msg_controllen = message->fds ? sizeof control : 0,
    };
    ssize_t got = recvmsg(sock, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    message->len = (size_t)got;
    message->fd_count = 0;
    message->sender_uid = -1;
    message->cut = (header.msg_flags & MSG_TRUNC) != 0;
    message->fds_cut = (header.msg_flags & MSG_CTRUNC) != 0;
    if (message->fds) detach(&header, message);
    message->end = got == 0 && message->fd_count == 0 && message->sender_uid < 0;
    return 0;
}

/* -- Wait for many ---------------------------------------------------------------------- */

int kin__os_watch_new(void) {
    int watch = epoll_create1(EPOLL_CLOEXEC);
    return watch < 0 ? -errno : watch;
}

kin_err kin__os_watch_add(int watch, int fd, void *tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    return epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void kin__os_watch_remove(int watch, int fd) {
    epoll_ctl(watch, EPOLL_CTL_DEL, fd, NULL);
}

int kin__os_watch_wait(int watch, void **tags, int room, int timeout_ms) {
    struct epoll_event events[16];
    if (room > 16) room = 16;
    int ready = epoll_wait(watch, events, room, timeout_ms);
    if (ready < 0) return -errno;
    for (int i = 0; i < ready; i++) tags[i] = events[i].data.ptr;
    return ready;
}

/* -- Lifelines ------------------------------------------------------------------------------ */

kin_err kin__os_lifeline_new(int ends[2]) {
    int made[2];
    if (pipe2(made, O_CLOEXEC | O_NONBLOCK) != 0) return -errno;
    ends[0] = made[0];
    ends[1] = made[1];
    return 0;
}

kin_err kin__os_identity(int fd, struct kin__os_identity *out) {
    struct stat status;
    if (fstat(fd, &status) != 0) return -errno;
    out->device = status.st_dev;
    out->inode = status.st_ino;
    return 0;
}

int kin__os_lifeline_reopen(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return own < 0 ? -errno : own;
}

static kin_err signal_at_end(int fd, int signo) {
    /* the owner goes first: without one the kernel would tell nobody */
    if (fcntl(fd, F_SETOWN, getpid()) != 0) return -errno;
    if (fcntl(fd, F_SETSIG, signo) != 0) return -errno;
    if (fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) != 0) return -errno;
    return 0;
}

int kin__os_lifeline_bind(int fd, int signo) {
    struct stat status;
    if (fstat(fd, &status) != 0) return -errno;
    int mode = fcntl(fd, F_GETFL);
    if (!S_ISFIFO(status.st_mode) || (mode & O_ACCMODE) != O_RDONLY) return -EINVAL;

    int own = kin__os_lifeline_reopen(fd);
    if (own < 0) return own;
    kin_err err = signal_at_end(own, signo);
    if (err == 0) return own;
    close(own);
    return err;
}
