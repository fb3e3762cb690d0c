/* Above all rooms: what each kind of block does at its end, and at the death of a
 * member that used it. */
#include "family/kinds.h"

#include "family/blob.h"
#include "family/locker.h"
#include "family/transit.h"
#include "queue/queue_kinds.h"
#include "sync/sync_kinds.h"

const kin__kind kin__kinds[KIN_KINDS] = {
    [KIN_KIND_LOCK] = {.bury = kin__lock_bury},
    [KIN_KIND_RLOCK] = {.bury = kin__rlock_bury},
    [KIN_KIND_QUEUE] = {.end = kin__queue_end,
                        .bury = kin__queue_bury,
                        .is_ready = kin__queue_is_ready,
                        .watch = kin__queue_watch},
    [KIN_KIND_BLOB] = {.end = kin__blob_end},
    [KIN_KIND_ENDING_BLOB] = {.end = kin__blob_end},
    [KIN_KIND_DESCRIPTOR] = {.end = kin__descriptor_end},
    [KIN_KIND_TRANSIT] = {.end = kin__transit_end},
};
