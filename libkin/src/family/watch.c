/* Who watches an object: a list of doorbells, in the arena. */
#include "watch.h"

#include "refs.h"

void kin__watch_ring(kin_family *family, _Atomic uint64_t *watch, bool all) {
    (void)family, (void)watch, (void)all;
}

void kin__watch_end(kin_family *family, _Atomic uint64_t *watch) {
    if (atomic_load_explicit(watch, memory_order_relaxed)) kin__ref_out_of(family, watch);
}
