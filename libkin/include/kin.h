/* libkin: processes, shared objects and queues for a family of processes.
 *
 * A family is all the processes that come from one first process.  What they
 * share lives in one arena: anonymous shared memory that every member maps.
 * Start with kin_family_found() in the first process; forked children are
 * members at once, executed ones join by the arena's descriptor.
 *
 * Rules that hold for every function here:
 *  - It returns a kin_err: 0, a negative error, or a positive number, which is
 *    success with news (KIN_OWNER_DIED).  errno is not part of the interface.
 *  - Results come by out-parameters, which a failure leaves untouched.
 *  - A deadline is absolute: CLOCK_MONOTONIC nanoseconds, KIN_NOW to try once,
 *    KIN_FOREVER to wait without end.
 *  - A signal handler that runs during a wait makes it return -EINTR, with
 *    nothing held and nothing lost; call again with the same deadline.
 *
 * Caveats: see docs/family.md ("What it does not do").
 */
#ifndef KIN_H
#define KIN_H

#include "kin/base.h"
#include "kin/channel.h"
#include "kin/dict.h"
#include "kin/entry.h"
#include "kin/family.h"
#include "kin/list.h"
#include "kin/locker.h"
#include "kin/message.h"
#include "kin/pickle.h"
#include "kin/pickler.h"
#include "kin/process.h"
#include "kin/queue.h"
#include "kin/sync.h"
#include "kin/transit.h"
#include "kin/value.h"
#include "kin/wait.h"

#endif
