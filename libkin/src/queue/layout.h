/* The shared layout of a queue.  docs/queue.md has the states and invariants.
 *
 * Each side (tail: producers, head: consumers) has a mutex, a count of the records
 * that have passed it, and a cursor that says where the next one is.  A count is
 * the one word whose store makes a push or a pop happen: what else changes with it
 * is kept twice, and the count's lowest bit says which of the two holds.  A member
 * killed before the store has done nothing, after it everything. */
#ifndef KIN_QUEUE_LAYOUT_H
#define KIN_QUEUE_LAYOUT_H

#include "family/family_internal.h"
#include "sync/park.h"

/* Where a side is: in which segment, and at which offset of the arena. */
typedef struct kin_cursor_shm {
    uint64_t segment, serial; /* segment 0: there is none yet */
    uint64_t at, end;
} kin_cursor_shm;

/* What a side is about to change outside the queue: blocks that pass between a
 * member's hands and the queue.  Settled by the next holder of the mutex if this
 * one dies.  It counts only while armed; the change was made if the side's count
 * is no longer `when`. */
typedef struct kin_transfer_shm {
    _Atomic uint32_t armed;
    uint32_t pad;
    uint64_t when;
    uint64_t segment, segment_serial; /* linked (tail) or retired (head); 0: none */
    uint64_t blob, blob_serial;       /* put or taken; 0: none */
} kin_transfer_shm;

typedef struct kin_side_shm {
    kin_mutex_shm mutex;
    uint32_t pad;
    kin_transfer_shm transfer;
    uint64_t fill;
    kin_cursor_shm cursor[2]; /* [count & 1] holds */
} kin_side_shm;

/* A count, and those who wait for it to grow, on a line of their own: the other
 * side looks at them all the time. */
typedef struct kin_count_shm {
    _Atomic uint64_t count;
    _Atomic uint64_t bytes[2]; /* what those records had in all; [count & 1] holds */
    kin_bell_shm bell;
    _Atomic uint64_t turn;  /* who is to be the next (turns.h); 0: whoever comes */
    _Atomic uint32_t calls; /* what that one is parked on */
    uint32_t pad;
    uint64_t fill;
} kin_count_shm;

enum kin__shut {
    KIN_OPEN = 0,
    KIN_SHUT = 1,    /* nothing may be put any more */
    KIN_DROPPED = 2, /* nor taken: what is still in it counts for nothing */
};

/* Payloads begin 32 bytes behind a cache line. */
typedef struct kin_queue_shm {
    uint64_t maxsize;      /* records; 0: no bound */
    uint64_t max_bytes;    /* of all records; 0: no bound */
    _Atomic uint32_t shut; /* enum kin__shut */
    uint32_t pad;
    _Atomic uint64_t taken;  /* DROPPED: how many had been popped by then */
    _Atomic uint64_t wanted; /* bytes of a record that found no room lately; a hint */
    _Atomic uint64_t done;   /* calls of task_done */
    kin_bell_shm all_done;
    uint64_t fill[4];
    kin_count_shm pushed, popped;
    kin_side_shm tail, head;
    kin_cursor_shm first; /* where the first record ever was put */
} kin_queue_shm;

/* In front of each record; records lie on multiples of 8. */
typedef struct kin_record_shm {
    uint32_t len;
    uint32_t what; /* tag, and one of the flags */
} kin_record_shm;
#define KIN_RECORD_BLOB 0x80000000u /* the payload is a kin_name_shm */
#define KIN_RECORD_JUMP 0x40000000u /* no record: the payload is the next cursor */
#define KIN_RECORD_TAG 0x00ffffffu

typedef struct kin_name_shm {
    uint64_t off, serial;
    uint64_t len; /* what the blob adds to the queue's bytes, and takes from them */
} kin_name_shm;

#define KIN_JUMP_ROOM (sizeof(kin_record_shm) + sizeof(kin_cursor_shm))

_Static_assert(offsetof(kin_queue_shm, pushed) % KIN_CACHE_LINE == 32,
               "the counts begin on a line");
_Static_assert(sizeof(kin_count_shm) == KIN_CACHE_LINE, "each count has its line");
_Static_assert(offsetof(kin_queue_shm, tail) % KIN_CACHE_LINE == 32, "so have the sides");
_Static_assert(sizeof(kin_side_shm) % KIN_CACHE_LINE == 0, "and keep apart");

#endif
