/* Channels: whole messages over a descriptor, a pipe's or a socket's.
 *
 * On the way a message is its length and its bytes, as Python's multiprocessing writes them:
 *
 *     up to 0x7fffffff bytes    !i length              the bytes
 *     more                      !i -1    !Q length     the bytes
 *
 * Nothing is read beyond the end of a message: what is left belongs to whoever reads next, in
 * whatever process.  docs/channel.md says what that costs.
 *
 * Threads: a channel is one thread's at a time for sending, and one's for receiving.
 * Processes: each end may be shared, but a message that two read at once is in pieces. */
#ifndef KIN_CHANNEL_H
#define KIN_CHANNEL_H

#include <stdbool.h>

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Plain data, in the caller's storage. */
typedef struct kin_channel {
    int fd; /* the caller's: nothing here closes it */
    bool is_socket;
    uint8_t head_len; /* bytes of the next message's length that have come, mostly 0 */
    uint8_t head[12]; /* those */
} kin_channel;

/* A channel over `fd`.  What is no socket is read and written all the same. */
KIN_API void kin_channel_init(kin_channel *channel, int fd);
/* Two connected channels, close-on-exec: fds[0] reads and fds[1] writes, or both do either.
 * Errors: -EMFILE, -ENFILE. */
KIN_API KIN_NODISCARD kin_err kin_channel_pair(bool duplex, int fds[2]);

/* How all of these wait:
 *
 *   deadline KIN_NOW   never: -EAGAIN.  So it is where the system can't tell whether it would
 *                      have to wait (pipes, before Linux 6.4).
 *   another            -ETIMEDOUT; -EINTR when a signal's handler ran; -EAGAIN from a descriptor
 *                      that its user has made non-blocking.
 *
 * After each of them the same call goes on where it was. */

/* Is there something to read, or the end?  0; -ETIMEDOUT, with KIN_NOW too; -EINTR. */
KIN_API KIN_NODISCARD kin_err kin_channel_poll(const kin_channel *channel, kin_deadline deadline);

/* Receive the length of the next message.
 * Errors: KIN_EEND (the other side has closed, and all was read), KIN_ECUT (the same, inside of a
 * length), KIN_EMESSAGELEN (there is no such length: nothing that follows can be understood). */
KIN_API KIN_NODISCARD kin_err kin_channel_recv_len(kin_channel *channel, uint64_t *len,
                                                   kin_deadline deadline);
/* Then its bytes, up to `len` of them, into data[*done:]; *done says how many have come.
 * Errors: KIN_ECUT. */
KIN_API KIN_NODISCARD kin_err kin_channel_recv(kin_channel *channel, void *data, size_t len,
                                               size_t *done, kin_deadline deadline);

/* A message on its way out: `count` parts, one behind the other. */
typedef struct kin_sending {
    const kin_part *parts; /* the caller's, until it is sent */
    size_t count;
    uint64_t len;
    uint64_t done; /* bytes that have left, of the length and the parts; it is sent or it is
                    * not: what is given up in between leaves the stream in pieces */
    size_t at;     /* the part that is next, and how much of it has left */
    size_t at_done;
    uint8_t head[12];
    uint8_t head_len;
} kin_sending;

KIN_API void kin_sending_init(kin_sending *sending, const kin_part *parts, size_t count);
/* Send it, or the rest of it: a small message in one system call.
 * Errors: -EPIPE (there is no SIGPIPE from a socket; from a pipe there is). */
KIN_API KIN_NODISCARD kin_err kin_channel_send(const kin_channel *channel, kin_sending *sending,
                                               kin_deadline deadline);

/* -- Descriptors --------------------------------------------------------------- */

/* The most that go at once. */
#define KIN_CHANNEL_FDS 253

/* Send descriptors, which stay the caller's, over a Unix socket: one byte, their number, that
 * brings them along.
 * Errors: -EINVAL (too many, or none), -EBADF, -ENOTSOCK, -EPIPE, -ETOOMANYREFS (as many are under
 * way as the system lets this user have: RLIMIT_NOFILE). */
KIN_API KIN_NODISCARD kin_err kin_channel_send_fds(const kin_channel *channel, const int *fds,
                                                   size_t count, kin_deadline deadline);
/* Receive up to `room` of them, close-on-exec and the caller's.
 * Errors: KIN_EEND; KIN_EMESSAGELEN (the byte brought none, or another number of them);
 * -EMFILE (this process may not open so many: RLIMIT_NOFILE), -E2BIG (they are more than `room`);
 * then none is left open. */
KIN_API KIN_NODISCARD kin_err kin_channel_recv_fds(const kin_channel *channel, int *fds,
                                                   size_t room, size_t *count,
                                                   kin_deadline deadline);

#ifdef __cplusplus
}
#endif

#endif
