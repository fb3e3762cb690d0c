/* What the files of this room know of each other's queue. */
#ifndef KIN_QUEUE_INTERNAL_H
#define KIN_QUEUE_INTERNAL_H

#include "layout.h"

/* Is there something to take, or will there never be? */
bool kin__queue_has_record(const kin_queue_shm *shm);
/* Is there room for a record of so many bytes, or will there never be? */
bool kin__queue_has_room(const kin_queue_shm *shm, uint64_t bytes);

#endif
