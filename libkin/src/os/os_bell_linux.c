/* Doorbells on Linux: keeps os_bell.h.
 *
 * A bell is a datagram socket with a name in the abstract namespace, which has no file and
 * goes with the socket.  A ring is an empty datagram: should a ringer's number ever have
 * become another file, there are no bytes that could get into it. */
#define _GNU_SOURCE
#include "os/os_bell.h"

#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/os_deadline_linux.h"

/* No queue of a socket is longer than some hundreds. */
#define DRAIN_MOST 1024

static socklen_t address_of(const uint8_t name[KIN__OS_BELL_NAME], struct sockaddr_un *out) {
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path + 1, name, KIN__OS_BELL_NAME); /* a leading 0: not a file's path */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + KIN__OS_BELL_NAME);
}

int kin__os_ringer_new(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

int kin__os_bell_new(const uint8_t name[KIN__OS_BELL_NAME]) {
    int fd = kin__os_ringer_new();
    if (fd < 0) return fd;
    struct sockaddr_un address;
    socklen_t len = address_of(name, &address);
    if (bind(fd, (struct sockaddr *)&address, len) == 0) return fd;
    int err = -errno;
    close(fd);
    return err;
}

kin_err kin__os_bell_ring(int ringer, const uint8_t name[KIN__OS_BELL_NAME]) {
    struct sockaddr_un address;
    socklen_t len = address_of(name, &address);
    for (;;) {
        if (sendto(ringer, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
                   len) >= 0)
            return 0;
        if (errno != EINTR) return -errno;
    }
}

bool kin__os_bell_drain(int bell) {
    uint8_t nothing;
    int count = 0;
    while (count < DRAIN_MOST && recv(bell, &nothing, sizeof nothing, MSG_DONTWAIT) >= 0) count++;
    return count > 0;
}

/* -- Many descriptors ------------------------------------------------------------- */

_Static_assert(sizeof(struct kin__os_reader) == sizeof(struct pollfd) &&
                   offsetof(struct kin__os_reader, fd) == offsetof(struct pollfd, fd) &&
                   offsetof(struct kin__os_reader, internal) == offsetof(struct pollfd, events) &&
                   offsetof(struct kin__os_reader, ready) == offsetof(struct pollfd, revents),
               "they are polled where they are");

kin_err kin__os_readers_poll(struct kin__os_reader *readers, size_t count, kin_deadline deadline) {
    struct timespec space;
    for (size_t i = 0; i < count; i++) {
        readers[i].internal = POLLIN;
        readers[i].ready = 0;
    }
    int ready = ppoll((struct pollfd *)readers, count, time_left(deadline, &space), NULL);
    if (ready < 0) return -errno;
    return ready == 0 ? -ETIMEDOUT : 0;
}
