/* Framing: see kin/channel.h.
 *
 * Every call is a loop of two steps: do what can be done without waiting; wait until more can be
 * done.  What has been done is in the caller's hands after each step (the length's bytes in the
 * channel, those of a message in `done`), so that a call that was interrupted goes on.
 *
 * Where the system can't say whether a call would wait, poll() says it before: then a reader may
 * still wait in the call itself, if another process was faster, until a signal or the next bytes. */
#include "kin/channel.h"

#include <string.h>

#include "channel/patience.h"
#include "os/os_stream.h"

enum { SHORT_HEAD = 4, LONG_HEAD = 12, LONG_LEN = 8 };
#define SHORT_MAX 0x7fffffffu

/* A message up to here is joined with its length: that costs less than two parts, and what is no
 * longer than a page stays in one piece in a pipe, whoever else writes to it. */
#define JOIN_LIMIT (4096 - SHORT_HEAD)

void kin_channel_init(kin_channel *channel, int fd) {
    *channel = (kin_channel){.fd = fd, .is_socket = kin__os_is_socket(fd)};
}

kin_err kin_channel_pair(bool duplex, int fds[2]) {
    return kin__os_stream_pair(duplex, fds);
}

kin_err kin_channel_poll(const kin_channel *channel, kin_deadline deadline) {
    struct kin__os_poll polled = {.fd = channel->fd, .want = KIN__OS_READ};
    return kin__os_poll(&polled, 1, deadline);
}

/* -- Receiving -------------------------------------------------------------------------- */

typedef struct reading {
    const kin_channel *channel;
    void *data;
    size_t len;
} reading;

static ssize_t try_read(void *work) {
    const reading *r = work;
    return kin__os_stream_read(r->channel->fd, r->channel->is_socket, r->data, r->len, KIN__OS_TRY);
}

/* The next bytes, at least one; 0 at the end; or why not. */
static ssize_t read_some(const kin_channel *channel, void *data, size_t len,
                         kin_deadline deadline) {
    reading work = {channel, data, len};
    ssize_t got = try_read(&work);
    if (deadline == KIN_NOW) return got == -EOPNOTSUPP ? -EAGAIN : got;
    if (got == -EAGAIN) got = kin__patience_spin(try_read, &work);
    while (got == -EAGAIN || got == -EOPNOTSUPP) {
        kin_err err = kin__patience_wait(channel->fd, KIN__OS_READ, deadline);
        if (err == -EAGAIN && got == -EOPNOTSUPP) err = 0; /* the read itself will say it */
        if (err) return err;
        got = got == -EAGAIN
                  ? try_read(&work)
                  : kin__os_stream_read(channel->fd, channel->is_socket, data, len, KIN__OS_WAIT);
        if (got == -EAGAIN && kin__os_is_nonblocking(channel->fd)) return got;
    }
    return got;
}

static kin_err fill_head(kin_channel *channel, uint8_t len, kin_deadline deadline) {
    while (channel->head_len < len) {
        ssize_t got = read_some(channel, channel->head + channel->head_len,
                                (size_t)(len - channel->head_len), deadline);
        if (got < 0) return (kin_err)got;
        if (got == 0) return channel->head_len ? KIN_ECUT : KIN_EEND;
        channel->head_len = (uint8_t)(channel->head_len + got);
    }
    return 0;
}

static uint64_t load_be(const uint8_t *in, int len) {
    uint64_t n = 0;
    for (int i = 0; i < len; i++) n = n << 8 | in[i];
    return n;
}

static void store_be(uint8_t *out, uint64_t n, int len) {
    for (int i = 0; i < len; i++) out[i] = (uint8_t)(n >> (8 * (len - 1 - i)));
}

kin_err kin_channel_recv_len(kin_channel *channel, uint64_t *len, kin_deadline deadline) {
    kin_err err = fill_head(channel, SHORT_HEAD, deadline);
    if (err) return err;
    uint64_t said = load_be(channel->head, SHORT_HEAD);
    if (said == UINT32_MAX) { /* -1 */
        err = fill_head(channel, LONG_HEAD, deadline);
        if (err) return err;
        said = load_be(channel->head + SHORT_HEAD, LONG_LEN);
        channel->head_len = 0;
        if (said > INT64_MAX) return KIN_EMESSAGELEN;
    } else {
        channel->head_len = 0;
        if (said > SHORT_MAX) return KIN_EMESSAGELEN;
    }
    *len = said;
    return 0;
}

kin_err kin_channel_recv(kin_channel *channel, void *data, size_t len, size_t *done,
                         kin_deadline deadline) {
    while (*done < len) {
        ssize_t got = read_some(channel, (uint8_t *)data + *done, len - *done, deadline);
        if (got < 0) return (kin_err)got;
        if (got == 0) return KIN_ECUT;
        *done += (size_t)got;
    }
    return 0;
}

/* -- Sending ---------------------------------------------------------------------------- */

void kin_sending_init(kin_sending *sending, const kin_part *parts, size_t count) {
    *sending = (kin_sending){.parts = parts, .count = count};
    for (size_t i = 0; i < count; i++) sending->len += parts[i].len;
    bool is_short = sending->len <= SHORT_MAX;
    store_be(sending->head, is_short ? sending->len : UINT32_MAX, SHORT_HEAD);
    if (!is_short) store_be(sending->head + SHORT_HEAD, sending->len, LONG_LEN);
    sending->head_len = is_short ? SHORT_HEAD : LONG_HEAD;
}

/* What is to be written next, as at most KIN__OS_STREAM_PARTS parts. */
static size_t next_parts(const kin_sending *sending, struct kin__os_part *out) {
    size_t count = 0;
    if (sending->done < sending->head_len) {
        out[count++] = (struct kin__os_part){sending->head + sending->done,
                                             sending->head_len - (size_t)sending->done};
    }
    size_t skipped = sending->at_done;
    for (size_t i = sending->at; i < sending->count && count < KIN__OS_STREAM_PARTS; i++) {
        const kin_part *part = &sending->parts[i];
        if (part->len > skipped) {
            out[count++] =
                (struct kin__os_part){(const uint8_t *)part->data + skipped, part->len - skipped};
        }
        skipped = 0;
    }
    return count;
}

static void advance(kin_sending *sending, size_t done) {
    if (sending->done < sending->head_len) {
        size_t left = sending->head_len - (size_t)sending->done;
        size_t here = done < left ? done : left;
        sending->done += here;
        done -= here;
    }
    sending->done += done;
    while (sending->at < sending->count) {
        size_t left = sending->parts[sending->at].len - sending->at_done;
        if (done < left) {
            sending->at_done += done;
            return;
        }
        done -= left;
        sending->at++;
        sending->at_done = 0;
    }
}

/* All of a small message, in one piece. */
static size_t join(const kin_sending *sending, uint8_t *out) {
    uint8_t *at = out;
    memcpy(at, sending->head, sending->head_len);
    at += sending->head_len;
    for (size_t i = 0; i < sending->count; i++) {
        const kin_part *part = &sending->parts[i];
        if (part->len) memcpy(at, part->data, part->len);
        at += part->len;
    }
    return (size_t)(at - out);
}

typedef struct writing {
    const kin_channel *channel;
    const struct kin__os_part *parts;
    size_t count;
} writing;

static ssize_t try_write(void *work) {
    const writing *w = work;
    return kin__os_stream_write(w->channel->fd, w->channel->is_socket, w->parts, w->count,
                                KIN__OS_TRY);
}

/* Some of the parts, at least one byte, or why not. */
static ssize_t write_some(const kin_channel *channel, const struct kin__os_part *parts,
                          size_t count, kin_deadline deadline) {
    writing work = {channel, parts, count};
    ssize_t done = try_write(&work);
    if (deadline == KIN_NOW) return done == -EOPNOTSUPP ? -EAGAIN : done;
    while (done == -EAGAIN || done == -EOPNOTSUPP) {
        kin_err err = kin__patience_wait(channel->fd, KIN__OS_WRITE, deadline);
        if (err == -EAGAIN && done == -EOPNOTSUPP) err = 0;
        if (err) return err;
        done = done == -EAGAIN ? try_write(&work)
                               : kin__os_stream_write(channel->fd, channel->is_socket, parts, count,
                                                      KIN__OS_WAIT);
        if (done == -EAGAIN && kin__os_is_nonblocking(channel->fd)) return done;
    }
    return done;
}

static ssize_t send_some(const kin_channel *channel, const kin_sending *sending,
                         kin_deadline deadline) {
    uint8_t joined[SHORT_HEAD + JOIN_LIMIT];
    struct kin__os_part parts[KIN__OS_STREAM_PARTS];
    if (sending->done == 0 && sending->len <= JOIN_LIMIT) {
        parts[0] = (struct kin__os_part){joined, join(sending, joined)};
        return write_some(channel, parts, 1, deadline);
    }
    return write_some(channel, parts, next_parts(sending, parts), deadline);
}

kin_err kin_channel_send(const kin_channel *channel, kin_sending *sending, kin_deadline deadline) {
    while (sending->done < sending->head_len + sending->len) {
        ssize_t done = send_some(channel, sending, deadline);
        if (done < 0) return (kin_err)done;
        advance(sending, (size_t)done);
    }
    return 0;
}

/* -- Descriptors -------------------------------------------------------------------------- */

kin_err kin_channel_send_fds(const kin_channel *channel, const int *fds, size_t count,
                             kin_deadline deadline) {
    if (count == 0 || count > KIN_CHANNEL_FDS) return -EINVAL;
    for (;;) {
        kin_err err = kin__os_stream_send_fds(channel->fd, (unsigned char)count, fds, count);
        if (err != -EAGAIN || deadline == KIN_NOW) return err;
        err = kin__patience_wait(channel->fd, KIN__OS_WRITE, deadline);
        if (err) return err;
    }
}

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) kin__os_close(fds[i]);
}

/* What is wrong with what came, if anything is. */
static kin_err check_fds(size_t got, unsigned char byte, size_t count, bool cut, size_t room) {
    if (got == 0) return KIN_EEND;
    if (cut) return byte > room ? -E2BIG : -EMFILE;
    return count && count == byte ? 0 : KIN_EMESSAGELEN;
}

kin_err kin_channel_recv_fds(const kin_channel *channel, int *fds, size_t room, size_t *count,
                             kin_deadline deadline) {
    unsigned char byte;
    size_t got, came;
    bool cut;
    for (;;) {
        kin_err err = kin__os_stream_recv_fds(channel->fd, &byte, &got, fds, room, &came, &cut);
        if (err == 0) break;
        if (err != -EAGAIN || deadline == KIN_NOW) return err;
        err = kin__patience_wait(channel->fd, KIN__OS_READ, deadline);
        if (err) return err;
    }
    kin_err err = check_fds(got, byte, came, cut, room);
    if (err) close_all(fds, came);
    else *count = came;
    return err;
}
