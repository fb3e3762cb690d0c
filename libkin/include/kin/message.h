/* Messages: pickles through queues, the same for Python and C.
 *
 * What kin_message_push() puts, a Python member's get() returns; what a Python
 * member's put() puts, kin_message_pop() reads, if it is plain data (value.h).
 * docs/messages.md has the layout. */
#ifndef KIN_MESSAGE_H
#define KIN_MESSAGE_H

#include "pickler.h"
#include "queue.h"
#include "value.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How a message lies in a blob: this head, a length of 8 bytes for each buffer, the pickle, and
 * the buffers, each on a multiple of KIN_MESSAGE_ALIGN.  Numbers as the machine has them. */
typedef struct kin_message_head {
    uint32_t format; /* KIN_MESSAGE_FORMAT */
    uint32_t buffer_count;
    uint64_t pickle_len;
} kin_message_head;

#define KIN_MESSAGE_FORMAT 0x316e696bu /* "kin1" */
#define KIN_MESSAGE_ALIGN 64

KIN_INLINE uint64_t kin_message_align(uint64_t off) {
    return (off + KIN_MESSAGE_ALIGN - 1) & ~(uint64_t)(KIN_MESSAGE_ALIGN - 1);
}

/* A message that was taken, and what it keeps. */
typedef struct kin_message {
    kin_values values;
    kin_blob blob; /* what it came in, if it was no small one */
} kin_message;

/* Put what a pickler has written, with its buffers, which are copied, and its refs, whose
 * objects live until the message has been taken and dropped.
 * Errors: those of kin_queue_push(); KIN_ESTALE (an object is gone), KIN_EKIND, KIN_EARENAFULL,
 * KIN_ETOOLARGE, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_message_push(kin_queue *queue, const kin_pickled *pickled,
                                               kin_deadline deadline);
/* Take the oldest message and read it.  options: may be NULL; its buffers are not looked at.
 * The objects that refs name live at least until kin_message_fini(), out-of-band buffers just so
 * long: open the ones and copy the others before.
 * Errors: those of kin_queue_pop(), and the message is still there; those of kin_pickle_read() and
 * -EBADMSG (it has not the shape of a message), and it is gone.
 * error: may be NULL; its reason is "" if it is the queue that failed. */
KIN_API KIN_NODISCARD kin_err kin_message_pop(kin_queue *queue, const kin_read_options *options,
                                              kin_message *out, kin_read_error *error,
                                              kin_deadline deadline);
/* Drop it.  On a zeroed one: nothing. */
KIN_API void kin_message_fini(kin_message *message);

#ifdef __cplusplus
}
#endif

#endif
