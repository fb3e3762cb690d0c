/* What clients and zygote say to each other: docs/process.md has it in words.
 *
 *   client → zygote, on the shared socket      a request, with descriptors: first
 *                                              the zygote's end of a private pair
 *   child → client, on the private pair        a reply, with the child's pidfd (the
 *                                              zygote replies if there is no child)
 *   zygote → client, on the private pair       the child's exit code, once it ended
 *
 * Each is one message.  Both sides are on one machine: native byte order, but for
 * the exit code, which is made for reading without this header. */
#ifndef KIN_PROCESS_ZYGOTE_WIRE_H
#define KIN_PROCESS_ZYGOTE_WIRE_H

#include <stdint.h>

#include "kin/base.h"

#define KIN__ZYGOTE_MAGIC 0x4e494b5au /* "ZKIN" */
#define KIN__ZYGOTE_VERSION 1

struct kin__zygote_request {
    uint32_t magic;
    uint16_t version;
    uint16_t fd_count; /* without the private socket */
    uint32_t len;      /* bytes of payload that follow */
};
_Static_assert(sizeof(struct kin__zygote_request) == 12, "no padding");

struct kin__zygote_reply {
    uint32_t magic;
    int32_t result; /* the child's pid, or -errno */
};

#define KIN__ZYGOTE_STATUS_LEN 4 /* exit code or minus signal: signed, little-endian */

/* Never wait; -EAGAIN: not now. */
kin_err kin__zygote_status_send(int fd, int status);
/* -EPIPE: there is none, and none will come. */
kin_err kin__zygote_status_recv(int fd, int *status);

#endif
