/* Above all rooms: what each kind of block does at its end, and at the death of a
 * member that used it. */
#include "family/kinds.h"

#include "family/blob.h"
#include "queue/queue_kinds.h"
#include "sync/sync_kinds.h"

const kin__kind kin__kinds[KIN_KINDS] = {
    [KIN_KIND_LOCK] = {.bury = kin__lock_bury},
    [KIN_KIND_RLOCK] = {.bury = kin__rlock_bury},
    [KIN_KIND_QUEUE] = {.end = kin__queue_end, .bury = kin__queue_bury},
    [KIN_KIND_BLOB] = {.end = kin__blob_end},
    [KIN_KIND_ENDING_BLOB] = {.end = kin__blob_end},
};
