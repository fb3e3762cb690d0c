/* Waiting for objects of the arena and descriptors together.
 *
 * An object has no descriptor, and needs none to be waited for alone.  For who waits for it among
 * descriptors there are doorbells: a doorbell is a descriptor of this process, readable once one of
 * the objects that it watches has become ready.  docs/doorbell.md has the protocol.
 *
 * Every function is safe from any thread, on different doorbells or the same one. */
#ifndef KIN_WAIT_H
#define KIN_WAIT_H

#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an object can be ready for. */
enum {
    /* A queue: it has something, or was shut.  An event: it is set.  A lock: it is free.  A
     * semaphore: it is above zero. */
    KIN_READY_TAKE = 1,
    /* A queue: it has room, or was shut. */
    KIN_READY_GIVE = 2,
};

/* Whether an object is ready now.  KIN_EKIND: there is no such readiness of its kind. */
KIN_API KIN_NODISCARD kin_err kin_ready(const kin_handle *object, int what, int *ready);

/* One thing to wait for: an object, or a descriptor that can be read. */
typedef struct kin_wait_item {
    const kin_handle *object; /* NULL: the descriptor */
    int fd;
    int what;  /* KIN_READY_…, of an object */
    int ready; /* the answer, 0 or 1 */
} kin_wait_item;

/* Wait until one of them is ready; then all that are ready are marked so.  A descriptor with an
 * error or a hang-up, or that is not open, is ready: the read that follows tells.  What was put
 * into a queue before a descriptor became ready is marked with it.  family: may be NULL where
 * there are no objects.  Costs nothing while it waits.
 * Errors: -ETIMEDOUT (none is marked), -EINTR, -EBADF (below zero), -EMFILE (no doorbell),
 * KIN_EKIND, KIN_ENOFAMILY, KIN_ELEFT, KIN_EARENAFULL, -ENOMEM. */
KIN_API KIN_NODISCARD kin_err kin_wait(kin_family *family, kin_wait_item *items, size_t count,
                                       kin_deadline deadline);

/* A doorbell, for an event loop.  Zeroed: not open. */
typedef struct kin_doorbell kin_doorbell;

/* Errors: -EMFILE, -ENFILE, KIN_ELEFT, KIN_ENOFAMILY, -ENOMEM.  In a forked child the doorbells of
 * its parent are closed: KIN_ESTALE from whatever is done with one. */
KIN_API KIN_NODISCARD kin_err kin_doorbell_open(kin_family *family, kin_doorbell **out);
KIN_API void kin_doorbell_close(kin_doorbell *doorbell);
/* Readable when it was rung; owned by the doorbell. */
KIN_API int kin_doorbell_fd(const kin_doorbell *doorbell);
/* Watch an object by a handle, which must stay open until it is unwatched.  Watched twice by one
 * handle is watched once.
 * Errors: KIN_EKIND, KIN_EARENAFULL, -ENOMEM, KIN_ESTALE. */
KIN_API KIN_NODISCARD kin_err kin_doorbell_watch(kin_doorbell *doorbell, const kin_handle *object,
                                                 int what);
KIN_API void kin_doorbell_unwatch(kin_doorbell *doorbell, const kin_handle *object, int what);
/* Make the descriptor say the truth, in any case not less than it: not readable unless one of the
 * objects is ready, readable if one is.  Returns 1 if one is, 0 if not.  To be called after an
 * object was found not to be ready, or no longer to be: nobody else takes a ring back. */
KIN_API KIN_NODISCARD kin_err kin_doorbell_settle(kin_doorbell *doorbell);

#ifdef __cplusplus
}
#endif

#endif
