/* Plain memory, and its link.
 *
 * A piece of memory lives as long as somebody holds it.  Linked, it holds itself, so that others
 * can come to it by its name later: the link is a place in its own head.
 *
 *   status   FRESH until it is linked or unlinked; LINKED; UNLINKED for good
 *
 * Status, place and count change together (kin__change). */
#include "arena.h"
#include "fault.h"
#include "refs.h"

/* The head stands in the line before the data. */
typedef struct kin_memory_shm {
    uint64_t len;
    uint64_t data;         /* offset in the arena */
    _Atomic uint64_t link; /* a place: itself, or 0 */
    _Atomic uint64_t status;
} kin_memory_shm;

enum { FRESH = 0, LINKED = 1, UNLINKED = 2 };

_Static_assert(KIN_HEADER + sizeof(kin_memory_shm) <= KIN_CACHE_LINE,
               "the head takes no more room");

static uint64_t up_to_line(uint64_t off) {
    return (off + KIN_CACHE_LINE - 1) & ~(uint64_t)(KIN_CACHE_LINE - 1);
}

kin_err kin_memory_create(kin_family *family, uint64_t len, kin_handle *out) {
    if (len > KIN_ARENA_MAX) return KIN_ETOOLARGE;
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_memory_shm) + KIN_CACHE_LINE + len, &handle);
    if (err) return err;
    kin_memory_shm *shm = handle.shm;
    shm->len = len;
    shm->data = up_to_line(kin__off(family, shm + 1));
    kin__object_share(&handle, KIN_KIND_MEMORY);
    *out = handle;
    return 0;
}

void *kin_memory_data(const kin_handle *memory) {
    const kin_memory_shm *shm = memory->shm;
    return kin__at(memory->family, shm->data);
}

uint64_t kin_memory_len(const kin_handle *memory) {
    return ((const kin_memory_shm *)memory->shm)->len;
}

/* -- The link ------------------------------------------------------------------------------ */

static uint64_t status_of(const kin_memory_shm *shm) {
    return atomic_load_explicit(&shm->status, memory_order_acquire);
}

int kin_memory_is_unlinked(const kin_handle *memory) {
    return status_of(memory->shm) == UNLINKED;
}

kin_err kin_memory_link(const kin_handle *memory) {
    kin_memory_shm *shm = memory->shm;
    kin_err err = kin__may(memory->family);
    if (err) return err;
    kin__change change = kin__change_begin(memory->family);
    uint64_t status = status_of(shm);
    if (status == FRESH) {
        kin__change_hold(&change, memory->ref.off, &shm->link);
        kin__change_store(&change, &shm->status, LINKED);
    }
    kin__change_end(&change);
    KIN_FAULT("memory-linked");
    return status == UNLINKED ? -ENOENT : 0;
}

kin_err kin_memory_unlink(const kin_handle *memory) {
    kin_memory_shm *shm = memory->shm;
    /* After leaving, the handle holds nothing: the block may be another's by now. */
    kin_err err = kin__may(memory->family);
    if (err) return err;
    kin__change change = kin__change_begin(memory->family);
    uint64_t status = status_of(shm);
    if (status != UNLINKED) kin__change_store(&change, &shm->status, UNLINKED);
    if (status == LINKED) {
        kin__change_store(&change, &shm->link, 0);
        (void)!kin__change_drop(&change, memory->ref.off); /* the caller holds it, too */
    }
    kin__change_end(&change);
    KIN_FAULT("memory-unlinked");
    return status == UNLINKED ? -ENOENT : 0;
}
