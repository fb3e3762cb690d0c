/* A queue of records in the arena, for any number of producers and consumers.
 *
 * Small records are copied through segments that are linked as the queue
 * grows; large ones, and those that mention other objects of the family, ride
 * as blobs, of which only the name is copied.  No thread, no pipe, no
 * descriptor.  A member killed at any instruction leaves the queue whole:
 * docs/queue.md has the protocol.
 *
 * Every function here is safe from any thread of any member. */
#ifndef KIN_QUEUE_H
#define KIN_QUEUE_H

#include "family.h"
#include "wait.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Records up to this many bytes are copied through the queue's segments. */
#define KIN_RECORD_MAX 8192

typedef struct kin_queue {
    kin_handle handle;
} kin_queue;

/* What goes into a queue: bytes, or a blob. */
typedef struct kin_item {
    const void *data; /* `len` bytes, at most KIN_RECORD_MAX */
    uint32_t len;
    uint32_t tag;   /* 24 bits for the caller's use */
    kin_blob *blob; /* instead of the bytes; NULL: none */
} kin_item;

/* What came out of it: bytes copied to the caller's buffer, or a blob. */
typedef struct kin_record {
    uint32_t len;  /* of a small record; 0: a blob */
    uint32_t tag;  /* the tag given to push */
    uint32_t off;  /* where in the buffer a small record is */
    kin_blob blob; /* open if blob.family is not NULL: now the caller's to free */
} kin_record;

/* maxsize: how many records it holds before push waits; 0: without bound. */
KIN_API KIN_NODISCARD kin_err kin_queue_create(kin_family *family, uint64_t maxsize,
                                               kin_queue *out);
/* The same with a second bound: push waits, too, while what is in the queue and what is to be put
 * are more than max_bytes together (0: without bound); a blob counts with its length.  A record
 * larger than that is let into the empty queue. */
KIN_API KIN_NODISCARD kin_err kin_queue_create_bounded(kin_family *family, uint64_t maxsize,
                                                       uint64_t max_bytes, kin_queue *out);
KIN_API KIN_NODISCARD kin_err kin_queue_open(kin_family *family, const kin_ref *ref,
                                             kin_queue *out);
KIN_API void kin_queue_close(kin_queue *queue); /* the handle; see kin_queue_shutdown */

/* Put `len` bytes (at most KIN_RECORD_MAX, else -EMSGSIZE) with a tag of 24 bits.
 * Errors: -ETIMEDOUT (the queue stayed full), -EINTR, KIN_EARENAFULL (and the
 * queue is as before), KIN_ECLOSED; with KIN_NOW -EAGAIN: another member is at
 * this side of the queue just now, or is to be the next, so that it can't be told;
 * call with a short deadline to wait for it. */
KIN_API KIN_NODISCARD kin_err kin_queue_push(kin_queue *queue, const void *data, uint32_t len,
                                             uint32_t tag, kin_deadline deadline);
/* Put a blob: on success it belongs to the queue and `blob` is closed; on
 * failure it is still the caller's. */
KIN_API KIN_NODISCARD kin_err kin_queue_push_blob(kin_queue *queue, kin_blob *blob, uint32_t tag,
                                                  kin_deadline deadline);
/* Put items[*done] to items[count - 1], in this order; others may put theirs between them.
 * *done goes up with each one that is in the queue, and says how many are when the call fails: call
 * again to go on from there.  Errors: as for the two above. */
KIN_API KIN_NODISCARD kin_err kin_queue_push_many(kin_queue *queue, const kin_item *items,
                                                  size_t count, size_t *done,
                                                  kin_deadline deadline);

/* Take the oldest record.  buffer: room for KIN_RECORD_MAX bytes.
 * Errors: -ETIMEDOUT (the queue stayed empty), -EINTR, KIN_ECLOSED (shut down,
 * and empty), -EAGAIN (as for push), -EBADMSG (the queue's bytes are damaged). */
KIN_API KIN_NODISCARD kin_err kin_queue_pop(kin_queue *queue, void *buffer, kin_record *out,
                                            kin_deadline deadline);
/* Take the oldest record and those behind it that are there already: no more than `most`, nor than
 * surely fit into `room` bytes (at least KIN_RECORD_MAX).  through: unless it is 0, the first record
 * whose tag has none of these bits is the last one.
 * *taken: how many, also if an error (-EBADMSG) ended it. */
KIN_API KIN_NODISCARD kin_err kin_queue_pop_many(kin_queue *queue, void *buffer, size_t room,
                                                 kin_record *out, size_t most, uint32_t through,
                                                 size_t *taken, kin_deadline deadline);

/* How many records are in it, or bytes; exact at some moment during the call. */
KIN_API uint64_t kin_queue_len(const kin_queue *queue);
KIN_API uint64_t kin_queue_bytes(const kin_queue *queue);
KIN_API uint64_t kin_queue_maxsize(const kin_queue *queue);
KIN_API uint64_t kin_queue_max_bytes(const kin_queue *queue);
/* Would every push have to wait? */
KIN_API int kin_queue_is_full(const kin_queue *queue);

/* Nothing more may be put by anyone; what is in it can still be taken, or, with `immediate`, is
 * dropped.  Whoever waits is told (KIN_ECLOSED).  To do so again is fine. */
KIN_API void kin_queue_shutdown(kin_queue *queue, int immediate);
KIN_API int kin_queue_is_shutdown(const kin_queue *queue);

/* Say that one record taken earlier has been dealt with; KIN_EOVERRELEASE if
 * there have been more such calls than records put (and not dropped). */
KIN_API kin_err kin_queue_task_done(kin_queue *queue);
/* Wait until every record put so far and later has been dealt with, or was dropped. */
KIN_API KIN_NODISCARD kin_err kin_queue_join(kin_queue *queue, kin_deadline deadline);

/* kin_doorbell_settle for a doorbell that watches this queue and nothing else, for KIN_READY_TAKE:
 * exact, too, about what other members are putting just now.  Where this process alone takes from the
 * queue, and no member is killed as it puts, the doorbell is then readable only if there is something. */
KIN_API KIN_NODISCARD kin_err kin_queue_settle(kin_queue *queue, kin_doorbell *doorbell);

#ifdef __cplusplus
}
#endif

#endif
