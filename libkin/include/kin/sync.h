/* Locks, semaphores, events, conditions and barriers that live in the arena.
 *
 * An uncontended operation is one atomic instruction and no system call (of a condition and a
 * barrier, a few); a contended one spins briefly where there is another CPU and
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

/* Where in a program a lock is taken, as a number for kin_lock_acquire_at: if the holder is killed,
 * its obituary will say so.  Of a longer text the last KIN_OBITUARY_MAX bytes are kept.  0, which
 * says nothing, if the family has no room for more texts; equal texts take room once. */
KIN_API uint32_t kin_lock_place(kin_family *family, const char *text);
/* As kin_lock_acquire, and note the place. */
KIN_API KIN_NODISCARD kin_err kin_lock_acquire_at(kin_lock *lock, kin_deadline deadline,
                                                  uint32_t place);
#define KIN_OBITUARY_MAX 112 /* bytes */
/* For one who was told KIN_OWNER_DIED by an acquire of a lock or an RLock, once, before it releases:
 * what is known of the one who died, its name and the place where it took the lock.  "": nothing.
 * From then on the lock is taken at `place`. */
KIN_API void kin_lock_obituary(const kin_handle *lock, uint32_t place,
                               char out[KIN_OBITUARY_MAX + 1]);

/* -- RLock: may be taken again by the thread that holds it ---------------- */

typedef struct kin_rlock {
    kin_handle handle;
} kin_rlock;

KIN_API KIN_NODISCARD kin_err kin_rlock_create(kin_family *family, kin_rlock *out);
KIN_API KIN_NODISCARD kin_err kin_rlock_open(kin_family *family, const kin_ref *ref,
                                             kin_rlock *out);
KIN_API void kin_rlock_close(kin_rlock *lock);
KIN_API KIN_NODISCARD kin_err kin_rlock_acquire(kin_rlock *lock, kin_deadline deadline);
KIN_API KIN_NODISCARD kin_err kin_rlock_acquire_at(kin_rlock *lock, kin_deadline deadline,
                                                   uint32_t place);
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

/* -- Condition: a place to wait until somebody says that something has changed ---- */

/* What must not change meanwhile is guarded by a lock of the caller's, which the condition knows
 * nothing of:
 *
 *   holding the lock: kin_condition_enter
 *   release the lock; kin_condition_sleep, again after -EINTR; acquire the lock
 *   kin_condition_leave, whose answer is what counts
 *
 * A call goes to one that waited when it was given, in the order in which they came, and to nobody
 * who is dead.  Who was called and is killed before it left passes the call on. */
typedef struct kin_condition {
    kin_handle handle;
} kin_condition;

/* A thread that waits: plain data, in the caller's storage. */
typedef struct kin_seat {
    void *shm;
    uint64_t number;
} kin_seat;

KIN_API KIN_NODISCARD kin_err kin_condition_create(kin_family *family, kin_condition *out);
KIN_API KIN_NODISCARD kin_err kin_condition_open(kin_family *family, const kin_ref *ref,
                                                 kin_condition *out);
KIN_API void kin_condition_close(kin_condition *condition);
/* Errors: KIN_EARENAFULL, KIN_ELEFT, KIN_ENOFAMILY. */
KIN_API KIN_NODISCARD kin_err kin_condition_enter(kin_condition *condition, kin_seat *out);
/* 0 (called), -ETIMEDOUT or -EINTR. */
KIN_API KIN_NODISCARD kin_err kin_condition_sleep(kin_condition *condition, const kin_seat *seat,
                                                  kin_deadline deadline);
/* Was it called, perhaps at the last moment?  To be called once for each enter. */
KIN_API int kin_condition_leave(kin_condition *condition, const kin_seat *seat);
/* Call up to `count` of those that wait; how many there were. */
KIN_API uint32_t kin_condition_notify(kin_condition *condition, uint32_t count);
/* How many wait and were not called. */
KIN_API uint32_t kin_condition_waiting(kin_condition *condition);

/* -- Barrier: a place where so many threads wait for each other ------------------- */

/* A member is a party of the barrier once it has waited there, or has said so (kin_barrier_join).
 * If a party is killed the barrier breaks: who waits is let go with KIN_EBROKEN, and so is who
 * comes later, until kin_barrier_reset. */
typedef struct kin_barrier {
    kin_handle handle;
} kin_barrier;

/* parties >= 1, else -EINVAL. */
KIN_API KIN_NODISCARD kin_err kin_barrier_create(kin_family *family, uint32_t parties,
                                                 kin_barrier *out);
KIN_API KIN_NODISCARD kin_err kin_barrier_open(kin_family *family, const kin_ref *ref,
                                               kin_barrier *out);
KIN_API void kin_barrier_close(kin_barrier *barrier);
/* Come to the barrier.  *index: how many came before, in this round.
 * 0: not all are here, go on with kin_barrier_wait.  KIN_BARRIER_LAST: all are here, and stay until
 * kin_barrier_release (or kin_barrier_leave, which breaks it then).
 * Errors: KIN_EBROKEN; -ETIMEDOUT and -EINTR (the last one of a full round was about to release it
 * for so long); KIN_EARENAFULL. */
#define KIN_BARRIER_LAST 2
KIN_API KIN_NODISCARD kin_err kin_barrier_arrive(kin_barrier *barrier, kin_seat *seat,
                                                 uint32_t *index, kin_deadline deadline);
/* 0: all were there.  KIN_EBROKEN.  -ETIMEDOUT and -EINTR: call again, or kin_barrier_give_up, or
 * kin_barrier_leave. */
KIN_API KIN_NODISCARD kin_err kin_barrier_wait(kin_barrier *barrier, const kin_seat *seat,
                                               kin_deadline deadline);
/* For the last one: let all go.  KIN_EBROKEN if it was broken or reset meanwhile. */
KIN_API KIN_NODISCARD kin_err kin_barrier_release(kin_barrier *barrier, const kin_seat *seat);
/* Wait no longer: the barrier breaks, KIN_EBROKEN, unless at the last moment all were there, 0. */
KIN_API kin_err kin_barrier_give_up(kin_barrier *barrier, const kin_seat *seat);
/* Go without the others, as if one had not come. */
KIN_API void kin_barrier_leave(kin_barrier *barrier, const kin_seat *seat);
/* Break it. */
KIN_API void kin_barrier_abort(kin_barrier *barrier);
/* Make it as new; who waits is let go with KIN_EBROKEN. */
KIN_API void kin_barrier_reset(kin_barrier *barrier);
/* Be a party before the first wait. */
KIN_API KIN_NODISCARD kin_err kin_barrier_join(kin_barrier *barrier);
KIN_API uint32_t kin_barrier_parties(const kin_barrier *barrier);
/* How many have come in this round. */
KIN_API uint32_t kin_barrier_waiting(kin_barrier *barrier);
KIN_API int kin_barrier_is_broken(kin_barrier *barrier);
/* The process id of the party whose death broke it, 0 if it was nobody's. */
KIN_API int kin_barrier_died(const kin_barrier *barrier);

#ifdef __cplusplus
}
#endif

#endif
