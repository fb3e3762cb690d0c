/* The system, as far as streams go: bytes through a pipe, a socket or what else can be read and
 * written, and descriptors through a socket.
 *
 * The contract, like os.h; os_stream_linux.c keeps it for Linux.  Safe from any thread. */
#ifndef KIN_OS_STREAM_H
#define KIN_OS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "kin/base.h"

/* Two ends, close-on-exec: [0] for reading and [1] for writing, or both for either. */
kin_err kin__os_stream_pair(bool duplex, int ends[2]);
bool kin__os_is_socket(int fd);
/* Has its user asked that calls on it never wait? */
bool kin__os_is_nonblocking(int fd);

/* What a read or write may do. */
enum kin__os_how {
    KIN__OS_TRY,  /* -EAGAIN rather than wait; -EOPNOTSUPP where the system can't promise that */
    KIN__OS_WAIT, /* -EINTR */
};

/* Up to `len` bytes: how many, 0 at the end, or -errno. */
ssize_t kin__os_stream_read(int fd, bool is_socket, void *data, size_t len, enum kin__os_how how);

#define KIN__OS_STREAM_PARTS 16
struct kin__os_part {
    const void *data;
    size_t len;
};
/* Write up to KIN__OS_STREAM_PARTS parts, or their beginning: how many bytes, or -errno.
 * No SIGPIPE from a socket. */
ssize_t kin__os_stream_write(int fd, bool is_socket, const struct kin__os_part *parts, size_t count,
                             enum kin__os_how how);

/* One byte, and with it descriptors: at most 253. */
kin_err kin__os_stream_send_fds(int fd, unsigned char byte, const int *fds, size_t count);
/* Receive such a byte.  *got: how many bytes came, 0 or 1; *count: descriptors, close-on-exec, the
 * caller's now; *cut: some were lost, for want of room or because this process may open no more. */
kin_err kin__os_stream_recv_fds(int fd, unsigned char *byte, size_t *got, int *fds, size_t room,
                                size_t *count, bool *cut);

#endif
