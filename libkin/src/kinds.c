/* Above all rooms: what each kind of block does at its end, and at the death of a
 * member that used it. */
#include "family/kinds.h"

#include "family/blob.h"
#include "family/locker.h"
#include "family/transit.h"
#include "family/watch.h"
#include "queue/queue_kinds.h"
#include "sync/sync_kinds.h"
#include "table/table_kinds.h"

const kin__kind kin__kinds[KIN_KINDS] = {
    [KIN_KIND_LOCK] = {.end = kin__lock_end,
                       .bury = kin__lock_bury,
                       .is_ready = kin__lock_is_ready,
                       .watch = kin__lock_watch},
    [KIN_KIND_RLOCK] = {.end = kin__lock_end,
                        .bury = kin__rlock_bury,
                        .is_ready = kin__lock_is_ready,
                        .watch = kin__lock_watch},
    [KIN_KIND_SEMAPHORE] = {.end = kin__semaphore_end,
                            .bury = kin__semaphore_bury,
                            .is_ready = kin__semaphore_is_ready,
                            .watch = kin__semaphore_watch},
    [KIN_KIND_EVENT] = {.end = kin__event_end,
                        .bury = kin__event_bury,
                        .is_ready = kin__event_is_ready,
                        .watch = kin__event_watch},
    [KIN_KIND_CONDITION] = {.end = kin__condition_end, .bury = kin__condition_bury},
    [KIN_KIND_BARRIER] = {.end = kin__barrier_end, .bury = kin__barrier_bury},
    [KIN_KIND_SEATS] = {.end = kin__seats_end},
    [KIN_KIND_DICT] = {.end = kin__dict_end},
    [KIN_KIND_LIST] = {.end = kin__list_end},
    [KIN_KIND_ENTRY] = {.end = kin__entry_end},
    [KIN_KIND_DROPPED] = {.end = kin__dropped_end},
    [KIN_KIND_QUEUE] = {.end = kin__queue_end,
                        .bury = kin__queue_bury,
                        .is_ready = kin__queue_is_ready,
                        .watch = kin__queue_watch},
    [KIN_KIND_BLOB] = {.end = kin__blob_end},
    [KIN_KIND_ENDING_BLOB] = {.end = kin__blob_end},
    [KIN_KIND_DESCRIPTOR] = {.end = kin__descriptor_end},
    [KIN_KIND_WATCHERS] = {.end = kin__watchers_end},
    [KIN_KIND_TRANSIT] = {.end = kin__transit_end, .bury = kin__transit_bury},
    [KIN_KIND_PASSAGES] = {.end = kin__passages_end},
};
