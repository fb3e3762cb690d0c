/* The client's side of the zygote: ask for a child, take the answer.
 *
 * Each request brings a socket of its own for the answer, so any number of threads
 * and processes may ask over the one shared socket and nobody has to sort answers.
 * If the zygote dies, the kernel closes its end of every such socket, those in
 * requests that it has not yet read included, and each client sees the end.  That
 * holds only if no other process has that end, not even a child that another thread
 * of the client forks at the wrong moment: hence the fork lock. */
#include <string.h>

#include "kin/process.h"
#include "os/os_process.h"
#include "process/fork.h"
#include "process/zygote_wire.h"

kin_err kin_zygote_channel(int ends[2]) {
    return kin__os_socket_pair(ends);
}

/* -- The exit code ------------------------------------------------------------------- */

kin_err kin__zygote_status_send(int fd, int status) {
    uint32_t bits = (uint32_t)status;
    uint8_t bytes[KIN__ZYGOTE_STATUS_LEN];
    for (int i = 0; i < KIN__ZYGOTE_STATUS_LEN; i++) bytes[i] = (uint8_t)(bits >> 8 * i);
    struct kin__os_message message = {.head = bytes, .head_len = sizeof bytes};
    return kin__os_message_send(fd, &message, false);
}

kin_err kin__zygote_status_recv(int fd, int *status) {
    uint8_t bytes[KIN__ZYGOTE_STATUS_LEN];
    struct kin__os_message message = {.head = bytes, .head_len = sizeof bytes};
    kin_err err = kin__os_message_recv(fd, &message);
    if (err) return err == -EAGAIN || err == -EINTR ? err : -EPIPE;
    if (message.len != sizeof bytes) return -EPIPE;
    uint32_t bits = 0;
    for (int i = 0; i < KIN__ZYGOTE_STATUS_LEN; i++) bits |= (uint32_t)bytes[i] << 8 * i;
    *status = (int)(int32_t)bits;
    return 0;
}

/* -- Ask ------------------------------------------------------------------------------ */

/* Send the request if there is room for it: -EAGAIN if not. */
static kin_err try_to_ask(int sock, struct kin__os_message *message, int *answer) {
    int pair[2];
    kin__fork_hold();
    kin_err err = kin__os_socket_pair(pair);
    if (err == 0) {
        message->fds[0] = pair[1];
        err = kin__os_message_send(sock, message, false);
        kin__os_close(pair[1]);
    }
    kin__fork_release();
    if (err == 0) {
        *answer = pair[0];
    } else if (message->fds[0] >= 0) {
        kin__os_close(pair[0]);
        message->fds[0] = -1;
    }
    return err;
}

/* Wait until there may be room.  The kernel bounds bytes under way, which can be
 * waited for, and descriptors under way, which can only be asked again. */
static kin_err wait_for_room(int sock, kin_err full) {
    if (full == -ETOOMANYREFS) {
        kin_err err = kin__os_sleep(kin_deadline_after(1000000));
        return err == -ETIMEDOUT ? 0 : err;
    }
    struct kin__os_poll poll = {.fd = sock, .want = KIN__OS_WRITE};
    return kin__os_poll(&poll, 1, KIN_FOREVER);
}

kin_err kin_zygote_ask(int sock, const void *payload, size_t len, const int *fds, size_t fd_count,
                       int *answer) {
    if (len > KIN_ZYGOTE_PAYLOAD_MAX) return -EMSGSIZE;
    if (fd_count > KIN_ZYGOTE_FDS_MAX) return -E2BIG;

    struct kin__zygote_request request = {
        .magic = KIN__ZYGOTE_MAGIC,
        .version = KIN__ZYGOTE_VERSION,
        .fd_count = (uint16_t)fd_count,
        .len = (uint32_t)len,
    };
    int all_fds[1 + KIN_ZYGOTE_FDS_MAX] = {-1};
    if (fd_count) memcpy(all_fds + 1, fds, fd_count * sizeof *fds);
    struct kin__os_message message = {
        .head = &request,
        .head_len = sizeof request,
        .body = (void *)payload,
        .body_len = len,
        .fds = all_fds,
        .fd_count = 1 + fd_count,
        .named = true,
    };
    for (;;) {
        kin_err err = try_to_ask(sock, &message, answer);
        if (err != -EAGAIN && err != -ETOOMANYREFS) return err;
        err = wait_for_room(sock, err);
        if (err) return err;
    }
}

/* -- The answer ------------------------------------------------------------------------- */

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) kin__os_close(fds[i]);
}

kin_err kin_zygote_answer(int answer, kin_deadline deadline, kin_process *out) {
    struct kin__zygote_reply reply;
    int fds[KIN__OS_MESSAGE_FDS];
    struct kin__os_message message = {.head = &reply, .head_len = sizeof reply, .fds = fds};
    kin_err err;
    do {
        struct kin__os_poll poll = {.fd = answer, .want = KIN__OS_READ};
        err = kin__os_poll(&poll, 1, deadline);
        if (err) return err;
        err = kin__os_message_recv(answer, &message);
    } while (err == -EAGAIN);
    if (err) return err == -ECONNRESET ? -EPIPE : err;
    /* Nothing more will come; or the end of a child that was killed before it replied. */
    if (message.end || message.len == KIN__ZYGOTE_STATUS_LEN) return -EPIPE;

    bool valid =
        message.len == sizeof reply && reply.magic == KIN__ZYGOTE_MAGIC && reply.result != 0;
    if (!valid || reply.result < 0) {
        close_all(fds, message.fd_count);
        return valid ? reply.result : -EPROTO;
    }
    /* No pidfd: the system has none, or there was no room for one, here or there. */
    if (message.fd_count > 1) close_all(fds + 1, message.fd_count - 1);
    *out = (kin_process){
        .pid = reply.result,
        .pidfd = message.fd_count ? fds[0] : -1,
        .status_fd = answer,
    };
    return 0;
}

kin_err kin_zygote_start(int sock, const void *payload, size_t len, const int *fds, size_t fd_count,
                         kin_process *out) {
    int answer;
    kin_err err = kin_zygote_ask(sock, payload, len, fds, fd_count, &answer);
    if (err) return err;
    do {
        err = kin_zygote_answer(answer, KIN_FOREVER, out);
    } while (err == -EINTR);
    if (err) kin__os_close(answer);
    return err;
}
