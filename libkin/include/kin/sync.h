/* Locks, semaphores and events that live in the arena.
 *
 * One futex word each: an uncontended operation is one atomic instruction and
 * no system call; a contended one spins briefly where there is another CPU and
 * then parks.  None needs a descriptor.  docs/locks.md has the protocol.
 *
 * Every function here is safe from any thread of any member. */
#ifndef KIN_SYNC_H
#define KIN_SYNC_H

#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

/* -- Lock: whoever holds it, anyone may release it ----------------------- */

typedef struct kin_lock {
    kin_handle handle;
} kin_lock;

KIN_API KIN_NODISCARD kin_err kin_lock_create(kin_family *family, kin_lock *out);
KIN_API KIN_NODISCARD kin_err kin_lock_open(kin_family *family, const kin_ref *ref, kin_lock *out);
KIN_API void kin_lock_close(kin_lock *lock);
/* 0; KIN_OWNER_DIED: the lock is yours, and the one who held it was killed,
 * perhaps half-way through what the lock guards; -ETIMEDOUT; -EINTR. */
KIN_API KIN_NODISCARD kin_err kin_lock_acquire(kin_lock *lock, kin_deadline deadline);
/* KIN_EOVERRELEASE if nobody holds it. */
KIN_API kin_err kin_lock_release(kin_lock *lock);
/* The token of the member that holds it, 0 if it is free. */
KIN_API uint32_t kin_lock_owner(const kin_lock *lock);
/* The process id of the last holder that was killed holding it, 0 if none. */
KIN_API int kin_lock_died(const kin_lock *lock);

/* -- RLock: may be taken again by the thread that holds it ---------------- */

typedef struct kin_rlock {
    kin_handle handle;
} kin_rlock;

KIN_API KIN_NODISCARD kin_err kin_rlock_create(kin_family *family, kin_rlock *out);
KIN_API KIN_NODISCARD kin_err kin_rlock_open(kin_family *family, const kin_ref *ref,
                                             kin_rlock *out);
KIN_API void kin_rlock_close(kin_rlock *lock);
KIN_API KIN_NODISCARD kin_err kin_rlock_acquire(kin_rlock *lock, kin_deadline deadline);
/* KIN_ENOTOWNER unless the calling thread holds it. */
KIN_API kin_err kin_rlock_release(kin_rlock *lock);
/* How often the calling thread holds it: 0 if it does not. */
KIN_API uint32_t kin_rlock_depth(const kin_rlock *lock);
KIN_API uint32_t kin_rlock_owner(const kin_rlock *lock);
KIN_API int kin_rlock_died(const kin_rlock *lock);

/* -- Semaphore: a count, owned by nobody ---------------------------------- */

typedef struct kin_semaphore {
    kin_handle handle;
} kin_semaphore;

#define KIN_SEMAPHORE_MAX 0x7fffffffu

/* value <= max <= KIN_SEMAPHORE_MAX, else -EINVAL. */
KIN_API KIN_NODISCARD kin_err kin_semaphore_create(kin_family *family, uint32_t value, uint32_t max,
                                                   kin_semaphore *out);
KIN_API KIN_NODISCARD kin_err kin_semaphore_open(kin_family *family, const kin_ref *ref,
                                                 kin_semaphore *out);
KIN_API void kin_semaphore_close(kin_semaphore *semaphore);
KIN_API KIN_NODISCARD kin_err kin_semaphore_acquire(kin_semaphore *semaphore,
                                                    kin_deadline deadline);
/* Adds `count`; KIN_EOVERRELEASE if that would pass the maximum (then nothing). */
KIN_API kin_err kin_semaphore_release(kin_semaphore *semaphore, uint32_t count);
KIN_API uint32_t kin_semaphore_value(const kin_semaphore *semaphore);
KIN_API uint32_t kin_semaphore_max(const kin_semaphore *semaphore);

/* -- Event: set or not ---------------------------------------------------- */

typedef struct kin_event {
    kin_handle handle;
} kin_event;

KIN_API KIN_NODISCARD kin_err kin_event_create(kin_family *family, kin_event *out);
KIN_API KIN_NODISCARD kin_err kin_event_open(kin_family *family, const kin_ref *ref,
                                             kin_event *out);
KIN_API void kin_event_close(kin_event *event);
KIN_API void kin_event_set(kin_event *event);
KIN_API void kin_event_clear(kin_event *event);
KIN_API int kin_event_is_set(const kin_event *event);
/* 0, -ETIMEDOUT or -EINTR.  Whoever waits when the event is set is let go,
 * even if it is cleared at once. */
KIN_API KIN_NODISCARD kin_err kin_event_wait(kin_event *event, kin_deadline deadline);

#ifdef __cplusplus
}
#endif

#endif
