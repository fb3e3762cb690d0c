/* The doorbell that a queue has once somebody has asked for its descriptor. */
#ifndef KINX_WAIT_H
#define KINX_WAIT_H

#include "ref.h"

/* To be called when a queue was found empty, or has become so: its descriptor is not to say
 * otherwise.  Never raises, and leaves an exception that is set alone. */
void kinx_queue_settle_slow(kinx_shared *self);
static inline void kinx_queue_settle(kinx_shared *self) {
    if (self->doorbell) kinx_queue_settle_slow(self);
}

#endif
