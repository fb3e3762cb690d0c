/* A kept blob as each process's own, after a fork.
 *
 * What a program has received it takes for its own: after a fork parent and child
 * may change their copies, and neither expects to see the other's changes.  But a
 * kept blob is in the arena, mapped shared.
 *
 * So the parent maps the blob's pages anew before it forks, privately this time,
 * and the child inherits that: the pages in the arena are what both had at that
 * moment, nobody writes to them any more, and the kernel copies one for whoever
 * changes it.  The block is free only when all have let go of it, and each maps
 * it shared again before it does, for it may be the next to be given it.
 *
 * A large block has its pages to itself, and its header is elsewhere, in the unit
 * table: all that changes while the block is kept is what its holders write. */
#include "arena.h"
#include "os/os.h"

static kin_err remap(const kin_handle *kept, bool own) {
    const kin_family *family = kept->family;
    uint64_t off = kept->ref.off;
    void *start = kin__at(family, off);
    if (kept->ref.kind != KIN_KIND_BLOB) return -EINVAL;
    if (kin__payload(family, off) != start) return -ENOTSUP; /* a small block */
    return kin__os_memory_remap(start, kin__payload_room(family, off), family->fd, off, own);
}

kin_err kin_blob_split(const kin_handle *kept) {
    return remap(kept, true);
}

kin_err kin_blob_rejoin(const kin_handle *kept) {
    return remap(kept, false);
}
