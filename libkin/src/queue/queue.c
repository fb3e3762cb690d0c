/* A queue of records in the arena.
 *
 * The way of one message: a producer locks the tail, writes the record where the
 * tail's cursor points, and publishes it by one store of the count of pushed
 * records; a consumer locks the head, copies the record out and consumes it by one
 * store of the count of popped ones.  Producers and consumers meet nowhere but at the
 * two counts.  Many records at a time go the same way, each by a store of its own, with
 * one lock and one call of those who wait.
 *
 *   sides.c    the counts, the locks, and what a dead member left in one
 *   records.c  where records lie
 *   turns.c    waiting, and who is the next
 *   tasks.c    task_done, join
 *   end.c      shutdown, burial, the end */
#include "kin/queue.h"

#include "family/refs.h"
#include "queue_internal.h"
#include "records.h"
#include "turns.h"

/* -- Making one ------------------------------------------------------------------------ */

kin_err kin_queue_create_bounded(kin_family *family, uint64_t maxsize, uint64_t max_bytes,
                                 kin_queue *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_queue_shm), &handle);
    if (err) return err;
    kin_queue_shm *shm = handle.shm;
    shm->maxsize = maxsize;
    shm->max_bytes = max_bytes;
    kin__object_share(&handle, KIN_KIND_QUEUE);
    out->handle = handle;
    return 0;
}

kin_err kin_queue_create(kin_family *family, uint64_t maxsize, kin_queue *out) {
    return kin_queue_create_bounded(family, maxsize, 0, out);
}

kin_err kin_queue_open(kin_family *family, const kin_ref *ref, kin_queue *out) {
    return kin__object_open(family, ref, KIN_KIND_QUEUE, &out->handle);
}

void kin_queue_close(kin_queue *queue) {
    kin_handle_close(&queue->handle);
}

/* -- How full it is ---------------------------------------------------------------------- */

static bool is_bounded(const kin_queue_shm *shm) {
    return shm->maxsize || shm->max_bytes;
}

bool kin__queue_has_record(const kin_queue_shm *shm) {
    return kin__passed_by_now(&shm->pushed) != kin__passed_by_now(&shm->popped) || kin__shut(shm);
}

bool kin__queue_has_room(const kin_queue_shm *shm, uint64_t bytes) {
    if (!is_bounded(shm)) return true;
    /* what has been popped first: then the differences are never negative */
    uint64_t popped_bytes = shm->max_bytes ? kin__bytes_passed_lately(&shm->popped) : 0;
    uint64_t popped = kin__passed_by_now(&shm->popped);
    uint64_t len = kin__passed_by_now(&shm->pushed) - popped;
    if (len == 0 || kin__shut(shm)) return true;
    if (shm->maxsize && len >= shm->maxsize) return false;
    if (shm->max_bytes == 0) return true;
    uint64_t used = kin__bytes_passed_lately(&shm->pushed) - popped_bytes;
    return used < shm->max_bytes && bytes <= shm->max_bytes - used;
}

/* The difference of what has passed the two sides, at a moment at which neither moved. */
static uint64_t between(const kin_queue_shm *shm, uint64_t (*passed)(const kin_count_shm *side)) {
    uint64_t popped = passed(&shm->popped), pushed, again;
    for (;; popped = again) {
        pushed = passed(&shm->pushed);
        again = passed(&shm->popped);
        if (again == popped) break;
    }
    return kin__shut(shm) == KIN_DROPPED ? 0 : pushed - popped;
}

uint64_t kin_queue_len(const kin_queue *queue) {
    return between(queue->handle.shm, kin__passed_by_now);
}

uint64_t kin_queue_bytes(const kin_queue *queue) {
    return between(queue->handle.shm, kin__bytes_passed_lately);
}

uint64_t kin_queue_maxsize(const kin_queue *queue) {
    return ((const kin_queue_shm *)queue->handle.shm)->maxsize;
}

uint64_t kin_queue_max_bytes(const kin_queue *queue) {
    return ((const kin_queue_shm *)queue->handle.shm)->max_bytes;
}

int kin_queue_is_full(const kin_queue *queue) {
    const kin_queue_shm *shm = queue->handle.shm;
    if (shm->maxsize && kin_queue_len(queue) >= shm->maxsize) return 1;
    return shm->max_bytes && kin_queue_bytes(queue) >= shm->max_bytes;
}

/* -- Push -------------------------------------------------------------------------------- */

static bool may_push(const void *object) {
    const kin__waiter *waiter = object;
    return kin__queue_has_room(waiter->shm, waiter->bytes);
}

/* For those who watch and can't say how much they want to put: who has found no room last. */
static void note_wanted(kin_queue_shm *shm, uint64_t bytes) {
    if (shm->max_bytes) atomic_store_explicit(&shm->wanted, bytes, memory_order_seq_cst);
}

static bool may_follow(const kin_queue_shm *shm, const kin_item *item) {
    return !kin__shut(shm) && kin__queue_has_room(shm, kin__item_bytes(item));
}

/* With the tail locked: as many as there is room for.  *reserved: there was room, but it is another's
 * turn. */
static kin_err put_locked(kin_queue *queue, const kin_item *items, size_t count, size_t *done,
                          kin__waiter *waiter, bool *reserved) {
    kin_queue_shm *shm = queue->handle.shm;
    if (kin__shut(shm)) return KIN_ECLOSED;
    waiter->bytes = kin__item_bytes(&items[*done]);
    if (!may_push(waiter)) {
        note_wanted(shm, waiter->bytes);
        return 0;
    }
    /* Without a bound nobody waits here: the consumers' line is left alone. */
    *reserved = is_bounded(shm) && kin__is_reserved(waiter);
    if (*reserved) return 0;
    note_wanted(shm, 0);
    do {
        kin_err err = kin__record_write(queue->handle.family, shm, &items[*done]);
        if (err) return err;
        ++*done;
    } while (*done < count && may_follow(shm, &items[*done]));
    return 0;
}

static kin_err check_items(const kin_queue *queue, const kin_item *items, size_t count) {
    kin_family *family = queue->handle.family;
    for (size_t i = 0; i < count; i++) {
        const kin_blob *blob = items[i].blob;
        if (!blob && items[i].len > KIN_RECORD_MAX) return -EMSGSIZE;
        if (blob && blob->holder != kin__token(family)) return KIN_ESTALE;
    }
    return kin__may(family);
}

kin_err kin_queue_push_many(kin_queue *queue, const kin_item *items, size_t count, size_t *done,
                            kin_deadline deadline) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    if (*done >= count) return 0;
    kin_err err = check_items(queue, items + *done, count - *done);
    kin__waiter waiter = {.family = family, .shm = shm, .side = &shm->popped, .ready = may_push};
    waiter.deadline = deadline;
    while (!err && *done < count) {
        size_t before = *done;
        bool reserved = false;
        err = kin__tail_lock(family, shm, deadline);
        if (err) break;
        err = put_locked(queue, items, count, done, &waiter, &reserved);
        /* Who watches is told with the tail locked: see kin_queue_settle. */
        if (*done > before) kin__bell_tell(family, &shm->pushed.bell);
        kin__tail_unlock(shm);
        if (*done > before)
            kin__call_waiters(&shm->pushed, (int)kin__min(*done - before, INT32_MAX));
        else if (!err) err = kin__await(&waiter, reserved);
    }
    kin__waiter_leave(&waiter);
    return err;
}

kin_err kin_queue_push(kin_queue *queue, const void *data, uint32_t len, uint32_t tag,
                       kin_deadline deadline) {
    kin_item item = {.data = data, .len = len, .tag = tag};
    size_t done = 0;
    return kin_queue_push_many(queue, &item, 1, &done, deadline);
}

kin_err kin_queue_push_blob(kin_queue *queue, kin_blob *blob, uint32_t tag, kin_deadline deadline) {
    kin_item item = {.blob = blob, .tag = tag};
    size_t done = 0;
    return kin_queue_push_many(queue, &item, 1, &done, deadline);
}

/* A ring that is sent late, when what it is about was taken already, would make a doorbell lie.  With
 * the tail locked none is under way; a producer that is stopped in there is not waited for. */
#define SETTLE_NS 10000000

kin_err kin_queue_settle(kin_queue *queue, kin_doorbell *doorbell) {
    kin_queue_shm *shm = queue->handle.shm;
    kin_deadline patience = kin_deadline_after(SETTLE_NS);
    bool is_locked = kin__tail_lock(queue->handle.family, shm, patience) == 0;
    kin_err ready = kin_doorbell_settle(doorbell);
    if (is_locked) kin__tail_unlock(shm);
    return ready;
}

/* -- Pop ---------------------------------------------------------------------------------- */

/* What a call of pop takes, and where to. */
typedef struct taking {
    uint8_t *buffer;
    size_t room;
    kin_record *out;
    size_t most;
    uint32_t through;
    size_t taken;
} taking;

static bool may_pop(const void *object) {
    const kin__waiter *waiter = object;
    return kin__queue_has_record(waiter->shm);
}

/* With the head locked: the `there` oldest, or fewer. */
static kin_err take_locked(kin_queue *queue, taking *to, uint64_t there) {
    size_t used = 0;
    kin_err err;
    do {
        kin_record *record = &to->out[to->taken];
        err = kin__record_read(queue->handle.family, queue->handle.shm, to->buffer + used, record);
        if (err) break;
        record->off = (uint32_t)used;
        used += ((size_t)record->len + 7) / 8 * 8;
        to->taken++;
        if (to->through && !(record->tag & to->through)) break;
    } while (to->taken < to->most && to->taken < there && to->room >= used + KIN_RECORD_MAX);
    return err;
}

/* With the head locked.  Nothing is taken if there is nothing, or (*reserved) it is another's turn. */
static kin_err take_if_any(kin_queue *queue, taking *to, const kin__waiter *waiter,
                           bool *reserved) {
    const kin_queue_shm *shm = queue->handle.shm;
    uint32_t shut = kin__shut(shm);
    uint64_t there = kin__passed(&shm->pushed) - kin__passed(&shm->popped);
    if (there == 0 || shut == KIN_DROPPED) return shut ? KIN_ECLOSED : 0;
    *reserved = kin__is_reserved(waiter);
    return *reserved ? 0 : take_locked(queue, to, there);
}

static void call_producers(kin_family *family, kin_queue_shm *shm, size_t count) {
    /* What one of them wants to put may be larger than what another wants: all shall look. */
    if (shm->max_bytes) kin__call(family, &shm->popped, INT32_MAX);
    else if (shm->maxsize) kin__call(family, &shm->popped, (int)kin__min(count, INT32_MAX));
}

static kin_err pop(kin_queue *queue, taking *to, kin_deadline deadline) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    kin__waiter waiter = {.family = family, .shm = shm, .side = &shm->pushed, .ready = may_pop};
    waiter.deadline = deadline;
    kin_err err = 0;
    while (!err && to->taken == 0) {
        bool reserved = false;
        err = kin__head_lock(family, shm, deadline);
        if (err) break;
        err = take_if_any(queue, to, &waiter, &reserved);
        kin__head_unlock(shm);
        if (!err && to->taken == 0) err = kin__await(&waiter, reserved);
    }
    kin__waiter_leave(&waiter);
    size_t gone = to->taken + (err == -EBADMSG);
    if (gone) call_producers(family, shm, gone);
    return err;
}

kin_err kin_queue_pop(kin_queue *queue, void *buffer, kin_record *out, kin_deadline deadline) {
    taking to = {.buffer = buffer, .room = KIN_RECORD_MAX, .out = out, .most = 1};
    return pop(queue, &to, deadline);
}

kin_err kin_queue_pop_many(kin_queue *queue, void *buffer, size_t room, kin_record *out,
                           size_t most, uint32_t through, size_t *taken, kin_deadline deadline) {
    taking to = {.buffer = buffer, .room = room, .out = out, .most = most, .through = through};
    *taken = 0;
    if (room < KIN_RECORD_MAX || most == 0) return -EINVAL;
    kin_err err = pop(queue, &to, deadline);
    *taken = to.taken;
    return err;
}
