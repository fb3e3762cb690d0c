/* os_stream.h for Linux.
 *
 * Whether a read would have to wait is asked of sockets by MSG_DONTWAIT, of all else by
 * RWF_NOWAIT, which pipes know since Linux 6.4.  An offset of -1 makes preadv2() a readv(). */
#include "os/os_stream.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

kin_err kin__os_stream_pair(bool duplex, int ends[2]) {
    int made[2];
    int failed =
        duplex ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made) : pipe2(made, O_CLOEXEC);
    if (failed) return -errno;
    ends[0] = made[0];
    ends[1] = made[1];
    return 0;
}

bool kin__os_is_socket(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

bool kin__os_is_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK);
}

/* What a file says that does not know RWF_NOWAIT, or the system. */
static ssize_t cannot_promise(ssize_t err) {
    return err == -EINVAL || err == -ENOSYS ? -EOPNOTSUPP : err;
}

/* -- Bytes ------------------------------------------------------------------------------ */

static ssize_t read_file(int fd, void *data, size_t len, enum kin__os_how how) {
    if (how == KIN__OS_WAIT) {
        ssize_t got = read(fd, data, len);
        return got < 0 ? -errno : got;
    }
    struct iovec part = {data, len};
    ssize_t got = preadv2(fd, &part, 1, -1, RWF_NOWAIT);
    return got < 0 ? cannot_promise(-errno) : got;
}

ssize_t kin__os_stream_read(int fd, bool is_socket, void *data, size_t len, enum kin__os_how how) {
    if (is_socket) {
        ssize_t got = recv(fd, data, len, how == KIN__OS_TRY ? MSG_DONTWAIT : 0);
        if (got >= 0) return got;
        if (errno != ENOTSOCK) return -errno; /* else the number is another file's by now */
    }
    return read_file(fd, data, len, how);
}

static ssize_t write_file(int fd, const struct iovec *parts, int count, enum kin__os_how how) {
    if (how == KIN__OS_WAIT) {
        ssize_t done = writev(fd, parts, count);
        return done < 0 ? -errno : done;
    }
    ssize_t done = pwritev2(fd, parts, count, -1, RWF_NOWAIT);
    return done < 0 ? cannot_promise(-errno) : done;
}

ssize_t kin__os_stream_write(int fd, bool is_socket, const struct kin__os_part *parts, size_t count,
                             enum kin__os_how how) {
    struct iovec vector[KIN__OS_STREAM_PARTS];
    for (size_t i = 0; i < count; i++) {
        vector[i].iov_base = (void *)parts[i].data;
        vector[i].iov_len = parts[i].len;
    }
    if (is_socket) {
        struct msghdr header = {.msg_iov = vector, .msg_iovlen = count};
        int flags = MSG_NOSIGNAL | (how == KIN__OS_TRY ? MSG_DONTWAIT : 0);
        ssize_t done = sendmsg(fd, &header, flags);
        if (done >= 0) return done;
        if (errno != ENOTSOCK) return -errno;
    }
    return write_file(fd, vector, (int)count, how);
}

/* -- Descriptors -------------------------------------------------------------------------- */

enum { MOST_FDS = 253 }; /* the kernel's SCM_MAX_FD */

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MOST_FDS * sizeof(int))];
};

kin_err kin__os_stream_send_fds(int fd, unsigned char byte, const int *fds, size_t count) {
    union control control = {0};
    struct iovec part = {&byte, 1};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(count * sizeof(int)),
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    return sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Takes those that there is room for, and closes the others. */
static void take(struct msghdr *header, int *fds, size_t room, size_t *count, bool *cut) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        size_t here = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int got;
            memcpy(&got, CMSG_DATA(part) + i * sizeof got, sizeof got);
            if (*count < room) {
                fds[(*count)++] = got;
            } else {
                close(got);
                *cut = true;
            }
        }
    }
}

kin_err kin__os_stream_recv_fds(int fd, unsigned char *byte, size_t *got, int *fds, size_t room,
                                size_t *count, bool *cut) {
    union control control;
    struct iovec part = {byte, 1};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control,
    };
    ssize_t len = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0) return -errno;
    *got = (size_t)len;
    *count = 0;
    *cut = (header.msg_flags & MSG_CTRUNC) != 0;
    take(&header, fds, room, count, cut);
    return 0;
}
