/* The locker on Linux: an AF_UNIX datagram socket, connected to itself.
 *
 * Connected to itself, it refuses what others send (EPERM), and is not subject to the limit of
 * datagrams in a queue (net.unix.max_dgram_qlen), only to that of its buffer.  Its name is one that
 * the kernel has chosen and is never used again.  SO_PEEK_OFF lets a look begin behind any number
 * of datagrams; a look with room for descriptors makes new ones and leaves the others in place. */
#define _GNU_SOURCE
#include "os/os_locker.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/os_process.h"

#define ROOM (16 << 20) /* as much as it gets: mostly net.core.wmem_max */

/* Connected, close-on-exec. */
static kin_err connect_to_itself(int sock) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(sa_family_t); /* no name: the kernel finds one */
    if (bind(sock, (struct sockaddr *)&name, len) != 0) return -errno;
    len = sizeof name;
    if (getsockname(sock, (struct sockaddr *)&name, &len) != 0) return -errno;
    return connect(sock, (struct sockaddr *)&name, len) == 0 ? 0 : -errno;
}

static uint64_t make_room(int sock) {
    int room = ROOM;
    if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0)
        (void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    socklen_t len = sizeof room;
    return getsockopt(sock, SOL_SOCKET, SO_SNDBUF, &room, &len) == 0 ? (uint64_t)room : 0;
}

int kin__os_locker_new(uint64_t *room) {
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0) return -errno;
    kin_err err = connect_to_itself(sock);
    if (err) {
        close(sock);
        return err;
    }
    *room = make_room(sock);
    return sock;
}

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(KIN__OS_LOCKER_FDS * sizeof(int))];
};

kin_err kin__os_locker_put(int locker, const void *label, size_t len, const int *fds,
                           size_t count) {
    struct iovec part = {(void *)label, len};
    union control control = {0};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    return sendmsg(locker, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static kin_err skip(int locker, uint64_t off) {
    int bytes = (int)off;
    if (off > INT32_MAX) return -EAGAIN;
    while (setsockopt(locker, SOL_SOCKET, SO_PEEK_OFF, &bytes, sizeof bytes) != 0)
        if (errno != EINTR) return -errno;
    return 0;
}

static void unpack(struct msghdr *header, kin__os_parcel *parcel) {
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    if (!part || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) return;
    size_t len = part->cmsg_len - CMSG_LEN(0);
    memcpy(parcel->fds, CMSG_DATA(part), len);
    parcel->count = len / sizeof(int);
}

kin_err kin__os_locker_look(int locker, uint64_t off, kin__os_parcel *parcel) {
    kin_err err = skip(locker, off);
    if (err) return err;
    union control control;
    struct iovec part = {parcel->label, parcel->room};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (parcel->wanted) {
        /* CMSG_LEN, not _SPACE: the padding would let one more in. */
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_LEN(parcel->wanted * sizeof(int));
    }
    ssize_t got = recvmsg(locker, &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    parcel->len = (size_t)got;
    parcel->count = 0;
    if (parcel->wanted) unpack(&header, parcel);
    return 0;
}

kin_err kin__os_locker_discard(int locker, size_t *len) {
    ssize_t got = recv(locker, NULL, 0, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0) return -errno;
    *len = (size_t)got;
    return 0;
}

uint64_t kin__os_locker_used(int locker) {
    int used = 0;
    return ioctl(locker, SIOCOUTQ, &used) == 0 ? (uint64_t)used : 0;
}

kin_err kin__os_descriptor_limit_met(int fd) {
    int copy = kin__os_duplicate(fd);
    if (copy < 0) return copy;
    close(copy);
    return 0;
}
