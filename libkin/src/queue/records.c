/* Records lie in segments, blocks of the arena that the producers link as the queue
 * grows (a JUMP at the end of the old one) and the consumers free as they leave them
 * behind.  A record larger than KIN_RECORD_MAX is a blob, of which the record holds
 * the name.  Segments and blobs pass between hands and queue under a transfer that says
 * so (layout.h), so that a killed member's is settled by the next one to lock that
 * side. */
#include "records.h"

#include <string.h>

#include "family/arena.h"
#include "family/blob.h"
#include "family/fault.h"
#include "sides.h"

/* Segments grow from the first, so that an idle queue is small, to the last. */
#define SEGMENT_FIRST (2048 - KIN_HEADER)
#define SEGMENT_LAST KIN_UNIT

static uint64_t record_room(uint32_t len) {
    return sizeof(kin_record_shm) + ((uint64_t)len + 7) / 8 * 8;
}

/* The cursor that holds once the count is `count`: behind the record at `cursor`. */
static void move_on(kin_side_shm *side, uint64_t count, const kin_cursor_shm *cursor,
                    uint32_t len) {
    kin_cursor_shm *next = &side->cursor[count & 1];
    *next = *cursor;
    next->at += record_room(len);
}

/* The payloads are copied by memmove, though they never overlap: of a memcpy whose length is known to
 * be bounded gcc makes string instructions, which are slow where it is small. */

/* -- Writing --------------------------------------------------------------------------- */

static uint64_t segment_len(const kin_cursor_shm *old, uint64_t need) {
    uint64_t len =
        old->segment ? kin__min((old->end - old->segment) * 4, SEGMENT_LAST) : SEGMENT_FIRST;
    return kin__max(len, need);
}

static kin_cursor_shm start_of(kin_family *family, uint64_t off) {
    kin_block_shm *block = kin__block(family, off);
    kin_cursor_shm cursor = {.segment = off};
    cursor.serial = atomic_load_explicit(&block->serial, memory_order_relaxed);
    cursor.at = kin__off(family, kin__payload(family, off));
    cursor.end = cursor.at + kin__payload_room(family, off);
    return cursor;
}

/* Have the cursor point to `room` bytes (and a jump behind them), in a new segment
 * if need be.  Nothing of it counts before the record is published. */
static kin_err make_room(kin_family *family, kin_queue_shm *shm, kin_cursor_shm *cursor,
                         uint64_t room) {
    if (cursor->segment && cursor->at + room + KIN_JUMP_ROOM <= cursor->end) return 0;
    uint64_t off;
    kin_err err = kin__block_new(family, segment_len(cursor, room + KIN_JUMP_ROOM), &off);
    if (err) return err;
    kin_cursor_shm next = start_of(family, off);
    kin_transfer_shm *transfer = &shm->tail.transfer;
    transfer->segment = off;
    transfer->segment_serial = next.serial;
    kin__transfer_arm(transfer, kin__passed(&shm->pushed));
    KIN_FAULT("queue-segment-armed");
    kin__block_put(family, kin__block(family, off), KIN_LINKED, KIN_KIND_SEGMENT);
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

/* The blob goes over into the queue with the store that publishes its record. */
static void link_blob(kin_queue_shm *shm, kin_blob *blob) {
    kin_transfer_shm *transfer = &shm->tail.transfer;
    transfer->blob = blob->ref.off;
    transfer->blob_serial = blob->ref.serial;
    kin__transfer_arm(transfer, kin__passed(&shm->pushed));
    KIN_FAULT("queue-blob-armed");
    kin__blob_link(blob);
    blob->family = NULL;
}

uint64_t kin__item_bytes(const kin_item *item) {
    return item->blob ? item->blob->len : item->len;
}

kin_err kin__record_write(kin_family *family, kin_queue_shm *shm, const kin_item *item) {
    kin_name_shm name;
    const void *data = item->data;
    kin_record_shm record = {.len = item->len, .what = item->tag & KIN_RECORD_TAG};
    uint64_t bytes = kin__item_bytes(item);
    if (item->blob) {
        const kin_ref *ref = &item->blob->ref;
        name = (kin_name_shm){.off = ref->off, .serial = ref->serial, .len = bytes};
        data = &name;
        record.len = sizeof name;
        record.what |= KIN_RECORD_BLOB;
    }

    uint64_t count = kin__passed(&shm->pushed);
    kin_cursor_shm cursor = shm->tail.cursor[count & 1];
    kin_err err = make_room(family, shm, &cursor, record_room(record.len));
    if (err) return err;
    kin_record_shm *place = kin__at(family, cursor.at);
    *place = record;
    memmove(place + 1, data, record.len);
    move_on(&shm->tail, count + 1, &cursor, record.len);

    kin_transfer_shm *transfer = &shm->tail.transfer;
    if (item->blob) link_blob(shm, item->blob);
    KIN_FAULT("queue-push-before");
    kin__pass(&shm->pushed, bytes);
    KIN_FAULT("queue-push-after");
    if (atomic_load_explicit(&transfer->armed, memory_order_relaxed))
        kin__transfer_disarm(transfer);
    return 0;
}

/* -- Reading --------------------------------------------------------------------------- */

/* Is there a record's header and `len` bytes at the cursor?  Shared bytes are not
 * trusted to lead out of their segment. */
static bool fits(const kin_cursor_shm *cursor, uint64_t len) {
    return cursor->end >= cursor->at && cursor->end - cursor->at >= sizeof(kin_record_shm) + len;
}

/* Where the oldest record is: the head's cursor, moved over a jump.  *left: the
 * segment that was left behind, 0 if none. */
static kin_record_shm *find_record(kin_family *family, kin_queue_shm *shm, kin_cursor_shm *cursor,
                                   kin_cursor_shm *left) {
    *cursor = shm->head.cursor[kin__passed(&shm->popped) & 1];
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

kin_err kin__record_read(kin_family *family, kin_queue_shm *shm, void *buffer, kin_record *out) {
    uint64_t count = kin__passed(&shm->popped);
    kin_cursor_shm cursor, left;
    const kin_record_shm *place = find_record(family, shm, &cursor, &left);
    if (!place) return -EBADMSG;
    kin_record_shm record = *place;
    if (record.len > KIN_RECORD_MAX || !fits(&cursor, record.len)) return -EBADMSG;
    kin_name_shm name = {.len = record.len};
    bool is_blob = record.what & KIN_RECORD_BLOB;
    if (!is_blob) memmove(buffer, place + 1, record.len);
    else if (record.len == sizeof name) memcpy(&name, place + 1, sizeof name);
    else return -EBADMSG;
    *out = (kin_record){.len = is_blob ? 0 : record.len, .tag = record.what & KIN_RECORD_TAG};

    kin_transfer_shm *transfer = &shm->head.transfer;
    bool is_transfer = is_blob || left.segment;
    if (is_transfer) {
        transfer->segment = left.segment;
        transfer->segment_serial = left.serial;
        transfer->blob = name.off;
        transfer->blob_serial = name.serial;
        kin__transfer_arm(transfer, count);
    }
    move_on(&shm->head, count + 1, &cursor, record.len);
    KIN_FAULT("queue-pop-before");
    kin__pass(&shm->popped, name.len);
    KIN_FAULT("queue-pop-after");
    bool is_torn = is_blob && !kin__blob_take(family, name.off, name.serial, &out->blob);
    KIN_FAULT("queue-pop-taken");
    kin__segment_free(family, left.segment, left.serial);
    if (is_transfer) kin__transfer_disarm(transfer);
    return is_torn ? -EBADMSG : 0;
}

void kin__records_end(kin_family *family, kin_queue_shm *shm) {
    kin_cursor_shm last = shm->head.cursor[kin__passed(&shm->popped) & 1];
    if (!last.segment) last = shm->first;
    kin__segment_free(family, last.segment, last.serial);
}
