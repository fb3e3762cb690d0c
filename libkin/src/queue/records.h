/* Writing records to a queue's tail and reading them from its head; with that side's
 * mutex held, or by who is the only one to know the queue. */
#ifndef KIN_QUEUE_RECORDS_H
#define KIN_QUEUE_RECORDS_H

#include "kin/queue.h"
#include "layout.h"

/* What an item adds to the bytes in a queue. */
uint64_t kin__item_bytes(const kin_item *item);

/* Write it behind the last one, and publish it.  A blob is the queue's from then on, and closed.
 * Errors: KIN_EARENAFULL and the like (and the queue is as before). */
KIN_NODISCARD kin_err kin__record_write(kin_family *family, kin_queue_shm *shm,
                                        const kin_item *item);

/* Take the oldest; there must be one.  buffer: room for KIN_RECORD_MAX bytes.
 * Errors: -EBADMSG. */
KIN_NODISCARD kin_err kin__record_read(kin_family *family, kin_queue_shm *shm, void *buffer,
                                       kin_record *out);

/* There is no record any more, and never will be: give the last segment back. */
void kin__records_end(kin_family *family, kin_queue_shm *shm);

#endif
