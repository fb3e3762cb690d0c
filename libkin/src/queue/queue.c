/* A queue of records in the arena.
 *
 * The way of one message: kin_queue_push locks the tail, writes the record where
 * the tail's cursor points, and publishes it by one store of the count of pushed
 * records; kin_queue_pop locks the head, copies the record out and consumes it by
 * one store of the count of popped ones.  Producers and consumers meet nowhere
 * but at the two counts.
 *
 * Records lie in segments, blocks of the arena that the producers link as the
 * queue grows (a JUMP at the end of the old one) and the consumers free as they
 * leave them behind.  A record larger than KIN_RECORD_MAX is a blob, of which the
 * record holds the name.  Segments and blobs pass between hands and queue under a
 * transfer that says so (layout.h), so that a killed member's is settled by the
 * next one to lock that side. */
#include "kin/queue.h"

#include <string.h>

#include "family/arena.h"
#include "family/blob.h"
#include "family/fault.h"
#include "family/mutex.h"
#include "family/refs.h"
#include "kin/wait.h"
#include "layout.h"
#include "queue_kinds.h"

/* -- Counts ------------------------------------------------------------------------ */

static uint64_t passed(const kin_count_shm *side) {
    /* acquire pairs with the store in pass(): who sees the count sees the record,
     * or that its place may be used again */
    return atomic_load_explicit(&side->count, memory_order_acquire);
}

static void pass(kin_count_shm *side, uint64_t count) {
    /* seq_cst: against a waiter that listens to the bell and then looks at the count */
    atomic_store_explicit(&side->count, count, memory_order_seq_cst);
}

static bool is_shut(const kin_queue_shm *shm) {
    return atomic_load_explicit(&shm->shut, memory_order_seq_cst) != 0;
}

static bool has_record(const void *object) {
    const kin_queue_shm *shm = object;
    return passed(&shm->pushed) != passed(&shm->popped) || is_shut(shm);
}

static bool has_room(const void *object) {
    const kin_queue_shm *shm = object;
    uint64_t popped = passed(&shm->popped); /* first: the difference is never negative */
    return passed(&shm->pushed) - popped < shm->maxsize || is_shut(shm);
}

/* -- Transfers ----------------------------------------------------------------------- */

static void arm(kin_transfer_shm *transfer, uint64_t when) {
    transfer->when = when;
    /* release: who finds it armed finds it whole */
    atomic_store_explicit(&transfer->armed, 1, memory_order_release);
}

static void disarm(kin_transfer_shm *transfer) {
    atomic_store_explicit(&transfer->armed, 0, memory_order_release);
    transfer->segment = transfer->blob = 0;
}

static void free_segment(kin_family *family, uint64_t off, uint64_t serial) {
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    if (!block || atomic_load_explicit(&block->serial, memory_order_acquire) != serial) return;
    if (kin__block_take(family, block, KIN_TAG(KIN_LINKED, KIN_KIND_SEGMENT, 0)))
        kin__block_free(family, off);
}

static void free_blob(kin_family *family, uint64_t off, uint64_t serial) {
    kin_blob blob;
    if (off && kin__blob_take(family, off, serial, &blob)) kin_blob_free(&blob);
}

static void free_transferred(kin_family *family, kin_transfer_shm *transfer) {
    free_segment(family, transfer->segment, transfer->segment_serial);
    free_blob(family, transfer->blob, transfer->blob_serial);
}

/* A producer died with the tail locked.  Not published: its blocks are nobody's. */
static void settle_tail(kin_family *family, kin_queue_shm *shm) {
    kin_transfer_shm *transfer = &shm->tail.transfer;
    if (!atomic_load_explicit(&transfer->armed, memory_order_acquire)) return;
    if (passed(&shm->pushed) == transfer->when) free_transferred(family, transfer);
    disarm(transfer);
}

/* A consumer died with the head locked.  Consumed: what it had left behind, and
 * what it had taken, are nobody's. */
static void settle_head(kin_family *family, kin_queue_shm *shm) {
    kin_transfer_shm *transfer = &shm->head.transfer;
    if (!atomic_load_explicit(&transfer->armed, memory_order_acquire)) return;
    if (passed(&shm->popped) != transfer->when) free_transferred(family, transfer);
    disarm(transfer);
}

static kin_err lock_tail(kin_family *family, kin_queue_shm *shm, kin_deadline deadline) {
    kin_err err = kin__mutex_lock_until(family, &shm->tail.mutex, deadline);
    if (err == KIN_OWNER_DIED) settle_tail(family, shm);
    return err < 0 ? err : 0;
}

static kin_err lock_head(kin_family *family, kin_queue_shm *shm, kin_deadline deadline) {
    kin_err err = kin__mutex_lock_until(family, &shm->head.mutex, deadline);
    if (err == KIN_OWNER_DIED) settle_head(family, shm);
    return err < 0 ? err : 0;
}

/* -- Push ---------------------------------------------------------------------------- */

/* Segments grow from the first, so that an idle queue is small, to the last. */
#define SEGMENT_FIRST (2048 - KIN_HEADER)
#define SEGMENT_LAST KIN_UNIT

static uint64_t record_room(uint32_t len) {
    return sizeof(kin_record_shm) + ((uint64_t)len + 7) / 8 * 8;
}

static uint64_t segment_len(const kin_cursor_shm *old, uint64_t need) {
    uint64_t len =
        old->segment ? kin__min((old->end - old->segment) * 4, SEGMENT_LAST) : SEGMENT_FIRST;
    return kin__max(len, need);
}

/* Have the cursor point to `room` bytes (and a jump behind them), in a new segment
 * if need be.  Nothing of it counts before the record is published. */
static kin_err make_room(kin_family *family, kin_queue_shm *shm, kin_cursor_shm *cursor,
                         uint64_t room) {
    if (cursor->segment && cursor->at + room + KIN_JUMP_ROOM <= cursor->end) return 0;
    uint64_t off;
    kin_err err = kin__block_new(family, segment_len(cursor, room + KIN_JUMP_ROOM), &off);
    if (err) return err;
    kin_block_shm *block = kin__block(family, off);
    kin_cursor_shm next = {.segment = off};
    next.serial = atomic_load_explicit(&block->serial, memory_order_relaxed);
    next.at = kin__off(family, kin__payload(family, off));
    next.end = next.at + kin__payload_room(family, off);

    kin_transfer_shm *transfer = &shm->tail.transfer;
    transfer->segment = off;
    transfer->segment_serial = next.serial;
    arm(transfer, passed(&shm->pushed));
    KIN_FAULT("queue-segment-armed");
    kin__block_put(family, block, KIN_LINKED, KIN_KIND_SEGMENT);
    KIN_FAULT("queue-segment-linked");
    if (cursor->segment) {
        kin_record_shm *jump = kin__at(family, cursor->at);
        *jump = (kin_record_shm){.len = sizeof next, .what = KIN_RECORD_JUMP};
        memcpy(jump + 1, &next, sizeof next);
    } else {
        shm->first = next;
    }
    *cursor = next;
    return 0;
}

/* With the tail locked. */
static kin_err write_record(kin_family *family, kin_queue_shm *shm, const void *data, uint32_t len,
                            uint32_t what, kin_blob *blob) {
    uint64_t count = passed(&shm->pushed);
    kin_cursor_shm cursor = shm->tail.cursor[count & 1];
    kin_err err = make_room(family, shm, &cursor, record_room(len));
    if (err) return err;
    kin_record_shm *record = kin__at(family, cursor.at);
    record->len = len;
    record->what = what;
    memcpy(record + 1, data, len);
    cursor.at += record_room(len);
    shm->tail.cursor[(count + 1) & 1] = cursor;

    kin_transfer_shm *transfer = &shm->tail.transfer;
    if (blob) {
        transfer->blob = blob->ref.off;
        transfer->blob_serial = blob->ref.serial;
        arm(transfer, count);
        KIN_FAULT("queue-blob-armed");
        kin__blob_link(blob);
    }
    KIN_FAULT("queue-push-before");
    pass(&shm->pushed, count + 1);
    KIN_FAULT("queue-push-after");
    if (atomic_load_explicit(&transfer->armed, memory_order_relaxed)) disarm(transfer);
    return 0;
}

/* Wait until the other side may have made the queue ready for this one.
 * *listened: the bell was asked to ring, so that others may miss their ring. */
static kin_err wait_until(kin__ready *ready, kin_family *family, kin_queue_shm *shm,
                          kin_bell_shm *bell, kin_deadline deadline, bool *listened) {
    if (deadline == KIN_NOW) return -ETIMEDOUT;
    if (kin__spin(family, ready, shm)) return 0;
    *listened = true;
    uint32_t heard = kin__bell_listen(bell);
    if (ready(shm)) return 0;
    KIN_FAULT("queue-waiting");
    return kin__bell_wait(bell, heard, deadline);
}

/* One that has listened goes, with its turn or in vain, and may have had the ring
 * that was meant for another: it sees that those beside it get theirs. */
static void stand_in(kin_family *family, kin_bell_shm *bell, bool more) {
    kin__bell_pass_on(bell);
    if (more) kin__bell_ring(family, bell, 1);
}

static kin_err push(kin_queue *queue, const void *data, uint32_t len, uint32_t what, kin_blob *blob,
                    kin_deadline deadline) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    kin_err err = kin__may(family);
    bool listened = false;
    while (!err) {
        err = lock_tail(family, shm, deadline);
        if (err) break;
        bool room = shm->maxsize == 0 || has_room(shm);
        if (is_shut(shm)) err = KIN_ECLOSED;
        else if (room) err = write_record(family, shm, data, len, what, blob);
        kin__mutex_unlock(&shm->tail.mutex);
        if (err || room) break;
        err = wait_until(has_room, family, shm, &shm->popped.bell, deadline, &listened);
    }
    if (listened) stand_in(family, &shm->popped.bell, has_room(shm));
    if (!err) kin__bell_ring(family, &shm->pushed.bell, 1);
    return err;
}

kin_err kin_queue_push(kin_queue *queue, const void *data, uint32_t len, uint32_t tag,
                       kin_deadline deadline) {
    if (len > KIN_RECORD_MAX) return -EMSGSIZE;
    return push(queue, data, len, tag & KIN_RECORD_TAG, NULL, deadline);
}

kin_err kin_queue_push_blob(kin_queue *queue, kin_blob *blob, uint32_t tag, kin_deadline deadline) {
    if (blob->holder != kin__token(queue->handle.family)) return KIN_ESTALE;
    kin_name_shm name = {.off = blob->ref.off, .serial = blob->ref.serial};
    kin_err err =
        push(queue, &name, sizeof name, (tag & KIN_RECORD_TAG) | KIN_RECORD_BLOB, blob, deadline);
    if (!err) blob->family = NULL;
    return err;
}

/* -- Pop ------------------------------------------------------------------------------ */

/* Is there a record's header and `len` bytes at the cursor?  Shared bytes are not
 * trusted to lead out of their segment. */
static bool fits(const kin_cursor_shm *cursor, uint64_t len) {
    return cursor->end >= cursor->at &&
           cursor->end - cursor->at >= sizeof(kin_record_shm) + (uint64_t)len;
}

/* Where the oldest record is: the head's cursor, moved over a jump.  *left: the
 * segment that was left behind, 0 if none. */
static kin_record_shm *find_record(kin_family *family, kin_queue_shm *shm, uint64_t count,
                                   kin_cursor_shm *cursor, kin_cursor_shm *left) {
    *cursor = shm->head.cursor[count & 1];
    *left = (kin_cursor_shm){0};
    if (!cursor->segment) *cursor = shm->first;
    if (!kin__block_find(family, cursor->segment) || !fits(cursor, 0)) return NULL;
    kin_record_shm *record = kin__at(family, cursor->at);
    if (!(record->what & KIN_RECORD_JUMP)) return record;
    if (!fits(cursor, sizeof *cursor)) return NULL;
    *left = *cursor;
    memcpy(cursor, record + 1, sizeof *cursor);
    if (!kin__block_find(family, cursor->segment) || !fits(cursor, 0)) return NULL;
    return kin__at(family, cursor->at);
}

/* With the head locked, and a record there. */
static kin_err read_record(kin_family *family, kin_queue_shm *shm, void *buffer, kin_record *out) {
    uint64_t count = passed(&shm->popped);
    kin_cursor_shm cursor, left;
    kin_record_shm *record = find_record(family, shm, count, &cursor, &left);
    if (!record || record->len > KIN_RECORD_MAX || !fits(&cursor, record->len)) return -EBADMSG;
    kin_name_shm name = {0};
    bool is_blob = record->what & KIN_RECORD_BLOB;
    if (is_blob) memcpy(&name, record + 1, sizeof name);
    else memcpy(buffer, record + 1, record->len);
    *out = (kin_record){.len = record->len, .tag = record->what & KIN_RECORD_TAG};
    cursor.at += record_room(record->len);

    kin_transfer_shm *transfer = &shm->head.transfer;
    if (is_blob || left.segment) {
        transfer->segment = left.segment;
        transfer->segment_serial = left.serial;
        transfer->blob = name.off;
        transfer->blob_serial = name.serial;
        arm(transfer, count);
    }
    shm->head.cursor[(count + 1) & 1] = cursor;
    KIN_FAULT("queue-pop-before");
    pass(&shm->popped, count + 1);
    KIN_FAULT("queue-pop-after");
    if (is_blob && !kin__blob_take(family, name.off, name.serial, &out->blob)) out->len = 0;
    KIN_FAULT("queue-pop-taken");
    free_segment(family, left.segment, left.serial);
    if (is_blob || left.segment) disarm(transfer);
    return is_blob && !out->blob.family ? -EBADMSG : 0;
}

kin_err kin_queue_pop(kin_queue *queue, void *buffer, kin_record *out, kin_deadline deadline) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    bool listened = false;
    kin_err err;
    for (;;) {
        err = lock_head(family, shm, deadline);
        if (err) break;
        bool there = passed(&shm->pushed) != passed(&shm->popped);
        bool shut = !there && is_shut(shm);
        if (there) err = read_record(family, shm, buffer, out);
        kin__mutex_unlock(&shm->head.mutex);
        if (there || err) break;
        err = shut ? KIN_ECLOSED
                   : wait_until(has_record, family, shm, &shm->pushed.bell, deadline, &listened);
        if (err) break;
    }
    if (listened) stand_in(family, &shm->pushed.bell, has_record(shm));
    if (!err && shm->maxsize) kin__bell_ring(family, &shm->popped.bell, 1);
    return err;
}

/* -- The rest ---------------------------------------------------------------------------- */

kin_err kin_queue_create(kin_family *family, uint64_t maxsize, kin_queue *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_queue_shm), &handle);
    if (err) return err;
    ((kin_queue_shm *)handle.shm)->maxsize = maxsize;
    kin__object_share(&handle, KIN_KIND_QUEUE);
    out->handle = handle;
    return 0;
}

kin_err kin_queue_open(kin_family *family, const kin_ref *ref, kin_queue *out) {
    return kin__object_open(family, ref, KIN_KIND_QUEUE, &out->handle);
}

void kin_queue_close(kin_queue *queue) {
    kin_handle_close(&queue->handle);
}

uint64_t kin_queue_len(const kin_queue *queue) {
    const kin_queue_shm *shm = queue->handle.shm;
    uint64_t popped = passed(&shm->popped), pushed, again;
    for (;; popped = again) {
        pushed = passed(&shm->pushed);
        again = passed(&shm->popped);
        if (again == popped) return pushed - popped;
    }
}

uint64_t kin_queue_maxsize(const kin_queue *queue) {
    return ((const kin_queue_shm *)queue->handle.shm)->maxsize;
}

void kin_queue_shut(kin_queue *queue) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    atomic_store_explicit(&shm->shut, 1, memory_order_seq_cst);
    kin__bell_ring(family, &shm->pushed.bell, INT32_MAX);
    kin__bell_ring(family, &shm->popped.bell, INT32_MAX);
}

int kin_queue_is_shut(const kin_queue *queue) {
    return is_shut(queue->handle.shm);
}

kin_err kin_queue_task_done(kin_queue *queue) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    uint64_t done = atomic_load_explicit(&shm->done, memory_order_relaxed);
    do {
        if (done >= passed(&shm->pushed)) return KIN_EOVERRELEASE;
    } while (!atomic_compare_exchange_weak_explicit(&shm->done, &done, done + 1,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (done + 1 == passed(&shm->pushed)) kin__bell_ring(family, &shm->all_done, INT32_MAX);
    return 0;
}

static bool is_all_done(const void *object) {
    const kin_queue_shm *shm = object;
    uint64_t done = atomic_load_explicit(&shm->done, memory_order_seq_cst);
    return done == passed(&shm->pushed);
}

kin_err kin_queue_join(kin_queue *queue, kin_deadline deadline) {
    kin_queue_shm *shm = queue->handle.shm;
    for (;;) {
        if (is_all_done(shm)) return 0;
        if (deadline == KIN_NOW) return -ETIMEDOUT;
        uint32_t heard = kin__bell_listen(&shm->all_done);
        if (is_all_done(shm)) return 0;
        kin_err err = kin__bell_wait(&shm->all_done, heard, deadline);
        if (err) return err;
    }
}

/* -- End and burial ------------------------------------------------------------------------ */

/* Nobody else knows the queue any more.  Records are popped one by one, so that
 * another member can go on where this one is killed. */
void kin__queue_end(kin_family *family, uint64_t off) {
    kin_queue_shm *shm = kin__payload(family, off);
    settle_tail(family, shm);
    settle_head(family, shm);
    uint8_t buffer[KIN_RECORD_MAX];
    while (passed(&shm->pushed) != passed(&shm->popped)) {
        kin_record record;
        if (read_record(family, shm, buffer, &record)) break;
        kin_blob_free(&record.blob);
    }
    kin_cursor_shm last = shm->head.cursor[passed(&shm->popped) & 1];
    if (!last.segment) last = shm->first;
    free_segment(family, last.segment, last.serial);
    kin__watch_end(family, &shm->pushed.bell.watch);
    kin__watch_end(family, &shm->popped.bell.watch);
}

bool kin__queue_is_ready(const void *shm, int what) {
    const kin_queue_shm *queue = shm;
    return what == KIN_READY_TAKE ? has_record(shm) : queue->maxsize == 0 || has_room(shm);
}

_Atomic uint64_t *kin__queue_watch(void *shm, int what, _Atomic uint32_t **flag) {
    kin_queue_shm *queue = shm;
    kin_bell_shm *bell = what == KIN_READY_TAKE ? &queue->pushed.bell : &queue->popped.bell;
    *flag = &bell->waiting;
    return &bell->watch;
}

/* Does a dead member's death matter here: a side left locked, a bell not rung? */
static bool is_left_over(kin_queue_shm *shm, uint32_t token) {
    return kin__mutex_is_held_by(&shm->tail.mutex, token) ||
           kin__mutex_is_held_by(&shm->head.mutex, token) ||
           atomic_load_explicit(&shm->pushed.bell.waiting, memory_order_relaxed) ||
           atomic_load_explicit(&shm->popped.bell.waiting, memory_order_relaxed) ||
           atomic_load_explicit(&shm->all_done.waiting, memory_order_relaxed) ||
           atomic_load_explicit(&shm->pushed.bell.watch, memory_order_relaxed) ||
           atomic_load_explicit(&shm->popped.bell.watch, memory_order_relaxed);
}

void kin__queue_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_queue_shm *shm = kin__payload(family, off);
    if (!is_left_over(shm, token)) return;
    kin_handle pin;
    if (kin__object_pin(family, off, KIN_KIND_QUEUE, &pin)) return;
    if (kin__mutex_is_held_by(&shm->tail.mutex, token) && lock_tail(family, shm, KIN_FOREVER) == 0)
        kin__mutex_unlock(&shm->tail.mutex);
    if (kin__mutex_is_held_by(&shm->head.mutex, token) && lock_head(family, shm, KIN_FOREVER) == 0)
        kin__mutex_unlock(&shm->head.mutex);
    /* It may have been killed on its way to ring. */
    kin__bell_ring(family, &shm->pushed.bell, INT32_MAX);
    kin__bell_ring(family, &shm->popped.bell, INT32_MAX);
    kin__bell_ring(family, &shm->all_done, INT32_MAX);
    kin__watch_ring(family, &shm->pushed.bell.watch, true);
    kin__watch_ring(family, &shm->popped.bell.watch, true);
    kin_handle_close(&pin);
}
