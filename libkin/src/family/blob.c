/* Blobs: messages in the arena.
 *
 * A blob is HAND (in one member's hands) or LINKED (under way in a queue), or
 * becomes an OBJECT when its receiver keeps views of it.  Its references are
 * places like the entries of a table of holds: kin__ref_into and _out_of. */
#include "blob.h"

#include <string.h>

#include "arena.h"
#include "fault.h"
#include "refs.h"

typedef struct kin_blob_shm {
    uint64_t len;
    uint64_t data; /* offset in the arena */
    uint32_t ref_room;
    uint32_t ref_next; /* the first place that is free */
    _Atomic uint64_t ref[];
} kin_blob_shm;

static uint64_t up_to_line(uint64_t off) {
    return (off + KIN_CACHE_LINE - 1) & ~(uint64_t)(KIN_CACHE_LINE - 1);
}

static kin_blob_shm *layout(const kin_family *family, uint64_t off) {
    return kin__payload(family, off);
}

/* A header that a dead or hostile member tore must not lead out of the block. */
static bool is_whole(const kin_family *family, uint64_t off, const kin_blob_shm *shm) {
    uint64_t room = kin__payload_room(family, off);
    uint64_t start = kin__off(family, shm);
    return shm->ref_room <= room / 8 && shm->data >= start && shm->data - start <= room &&
           shm->len <= room - (shm->data - start);
}

static void open_as(kin_family *family, uint64_t off, uint64_t serial, kin_blob *out) {
    kin_blob_shm *shm = layout(family, off);
    *out = (kin_blob){.family = family, .data = kin__at(family, shm->data), .len = shm->len};
    out->ref = (kin_ref){.off = off, .serial = serial, .kind = KIN_KIND_BLOB};
    out->holder = kin__token(family);
}

static uint64_t in_hand(uint32_t token, unsigned kind) {
    return KIN_TAG(KIN_HAND, kind, token);
}

static kin_block_shm *block_of(const kin_blob *blob) {
    return kin__block(blob->family, blob->ref.off);
}

kin_err kin_blob_create(kin_family *family, uint64_t len, uint32_t ref_count, kin_blob *out) {
    if (len > KIN_ARENA_MAX) return KIN_ETOOLARGE;
    uint64_t off, front = sizeof(kin_blob_shm) + (uint64_t)ref_count * sizeof(uint64_t);
    kin_err err = kin__block_new(family, front + KIN_CACHE_LINE + len, &off);
    if (err) return err;
    kin_blob_shm *shm = layout(family, off);
    shm->len = len;
    shm->data = up_to_line(kin__off(family, shm) + front);
    shm->ref_room = ref_count;
    shm->ref_next = 0;
    memset((void *)shm->ref, 0, ref_count * sizeof *shm->ref);
    kin_block_shm *block = kin__block(family, off);
    uint32_t token = kin__token(family);
    kin__block_retag(block, in_hand(token, KIN_KIND_RAW), in_hand(token, KIN_KIND_BLOB));
    open_as(family, off, atomic_load_explicit(&block->serial, memory_order_relaxed), out);
    return 0;
}

kin_err kin_blob_add_ref(kin_blob *blob, const kin_ref *ref) {
    kin_blob_shm *shm = layout(blob->family, blob->ref.off);
    uint32_t place = shm->ref_next;
    if (place >= shm->ref_room) return -ENOSPC;
    kin_err err = kin__ref_into(blob->family, ref, &shm->ref[place]);
    if (err == 0) shm->ref_next = place + 1;
    return err;
}

kin_err kin_blob_claim(kin_family *family, const kin_ref *ref, kin_blob *out) {
    kin_err err = kin__may(family);
    if (err) return err;
    if (ref->kind != KIN_KIND_BLOB) return KIN_EKIND;
    kin_block_shm *block = kin__block_find(family, ref->off);
    if (!block) return KIN_ESTALE;
    for (;;) {
        uint64_t tag = kin__block_tag(block);
        uint64_t serial = atomic_load_explicit(&block->serial, memory_order_acquire);
        if (serial != ref->serial || ref->serial == 0) return KIN_ESTALE;
        if (KIN_TAG_STATE(tag) != KIN_HAND || KIN_TAG_KIND(tag) != KIN_KIND_BLOB) return KIN_ESTALE;
        if (!kin__block_take(family, block, tag)) continue;
        if (KIN_TAG_LOW(tag) == kin__token(family)) /* it was counted already */
            atomic_fetch_sub_explicit(&family->hands, 1, memory_order_relaxed);
        break;
    }
    KIN_FAULT("blob-claimed");
    /* Between the check and the take it may have ended and begun anew. */
    bool same = atomic_load_explicit(&block->serial, memory_order_acquire) == ref->serial;
    if (!same || !is_whole(family, ref->off, layout(family, ref->off))) {
        kin__blob_end(family, ref->off);
        kin__block_free(family, ref->off);
        return KIN_ESTALE;
    }
    open_as(family, ref->off, ref->serial, out);
    return 0;
}

/* Out of this member's hands' count, and closed; if it was ever counted here. */
static void forget(kin_blob *blob) {
    kin_family *family = blob->family;
    if (blob->holder == kin__token(family))
        atomic_fetch_sub_explicit(&family->hands, 1, memory_order_relaxed);
    blob->family = NULL;
}

/* Make sure that it is ours and stays so: from now on it can't be claimed. */
static bool grasp(kin_blob *blob) {
    uint32_t token = kin__token(blob->family);
    kin_block_shm *block = block_of(blob);
    return token && blob->holder == token &&
           atomic_load_explicit(&block->serial, memory_order_acquire) == blob->ref.serial &&
           kin__block_retag(block, in_hand(token, KIN_KIND_BLOB),
                            in_hand(token, KIN_KIND_ENDING_BLOB));
}

void kin_blob_free(kin_blob *blob) {
    if (!blob->family) return;
    if (!grasp(blob)) {
        forget(blob);
        return;
    }
    kin__blob_end(blob->family, blob->ref.off);
    kin__block_free(blob->family, blob->ref.off);
    blob->family = NULL;
}

void kin__blob_end(kin_family *family, uint64_t off) {
    kin_blob_shm *shm = layout(family, off);
    if (!is_whole(family, off, shm)) return;
    for (uint32_t i = 0; i < shm->ref_room; i++)
        if (atomic_load_explicit(&shm->ref[i], memory_order_relaxed))
            kin__ref_out_of(family, &shm->ref[i]);
}

kin_err kin_blob_keep(kin_blob *blob, kin_handle *out) {
    kin_family *family = blob->family;
    kin_err err = kin__may(family);
    if (err) return err;
    kin_handle handle;
    err = kin__object_adopt(family, blob->ref.off, blob->ref.serial, &handle);
    if (err) return err;
    if (!grasp(blob)) {
        kin__object_abandon(&handle);
        return KIN_ESTALE;
    }
    kin__blob_end(family, blob->ref.off);
    kin__object_share(&handle, KIN_KIND_BLOB);
    blob->family = NULL;
    *out = handle;
    return 0;
}

/* -- For the queue ------------------------------------------------------------ */

void kin__blob_link(kin_blob *blob) {
    kin__block_put(blob->family, block_of(blob), KIN_LINKED, KIN_KIND_BLOB);
}

void kin__blob_unlink(kin_blob *blob) {
    kin__block_take(blob->family, block_of(blob), KIN_TAG(KIN_LINKED, KIN_KIND_BLOB, 0));
}

bool kin__blob_take(kin_family *family, uint64_t off, uint64_t serial, kin_blob *out) {
    const uint64_t linked = KIN_TAG(KIN_LINKED, KIN_KIND_BLOB, 0);
    kin_block_shm *block = kin__block_find(family, off);
    /* The tag before the serial: see kin__segment_free. */
    if (!block || kin__block_tag(block) != linked) return false;
    if (atomic_load_explicit(&block->serial, memory_order_acquire) != serial) return false;
    if (!kin__block_take(family, block, linked)) return false;
    open_as(family, off, serial, out);
    if (is_whole(family, off, layout(family, off))) return true;
    kin__block_free(family, off);
    return false;
}
