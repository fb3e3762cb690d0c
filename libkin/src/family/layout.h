/* What the members share: the layout of the arena.  Format word: KIN_FORMAT.
 *
 *   0            struct kin_arena_shm    header, free lists, journal
 *   members      struct kin_member_shm   one row for each possible member
 *   units        struct kin_unit_shm     one row for each unit of 64 KiB
 *   first_unit   units …                 blocks
 *
 * All numbers are offsets, counts and bits, never pointers; fields that more
 * than one member writes are atomic.  docs/arena.md has the states and says who
 * may die where.  A change here bumps KIN_FORMAT and that page. */
#ifndef KIN_FAMILY_LAYOUT_H
#define KIN_FAMILY_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>

#include "kin/family.h"

#define KIN_MAGIC 0x6172656e616b696eull /* "nikanera" */
#define KIN_FORMAT 4u
#define KIN_CACHE_LINE 64

#define KIN_UNIT ((uint64_t)65536)
#define KIN_GRANULE 64             /* blocks lie on multiples of this */
#define KIN_ARENA_MAX (1ull << 42) /* what 36 bits of granules reach: 4 TiB */
#define KIN_MEMBERS 8192           /* 13 bits of a token */

/* Size classes.  The small ones share units ("chunks"); class KIN_LARGE + k is
 * a run of 2^k units. */
#define KIN_SMALL_CLASSES 17
#define KIN_LARGE KIN_SMALL_CLASSES
#define KIN_LARGE_CLASSES 27
#define KIN_CLASSES (KIN_SMALL_CLASSES + KIN_LARGE_CLASSES)

/* A block's tag says everything about it in one word:
 *   bits  0–31  FREE: epoch of its free list; HAND: token of the member
 *   bits 32–39  state
 *   bits 40–47  kind
 *   bits 48–55  class + 1, in the rows of the unit table only
 * A tag of 0 is a block that was never used. */
enum kin__state {
    KIN_FREE = 0,   /* nobody's; perhaps on a free list */
    KIN_HAND = 1,   /* in the hands of one member */
    KIN_LINKED = 2, /* part of a queue */
    KIN_OBJECT = 3, /* reference-counted */
    KIN_CHUNK = 4,  /* a unit that is cut into small blocks */
};

/* Kinds below are never the kind of a ref. */
enum {
    KIN_KIND_RAW = 0,
    KIN_KIND_SEGMENT = 32,
    KIN_KIND_ENDING_BLOB = 33,
    KIN_KIND_WATCHERS = 34, /* who wants to know of an object: watch.c */
    KIN_KIND_PASSAGES = 35, /* further holds of a transit */
    KIN_KIND_TEXTS = 36,    /* short texts: texts.c */
    KIN_KIND_SEATS = 37,    /* further threads that wait at a condition or a barrier: seats.c */
    KIN_KIND_ENTRY = 38,    /* of a dict or a list: entry.c */
    KIN_KIND_SLOTS = 39,    /* the array of a dict or a list: what its places hold is theirs */
    KIN_KIND_DROPPED = 40,  /* such an array, whose places are given back with it */
};

#define KIN_TAG(state, kind, low) \
    (((uint64_t)(kind) << 40) | ((uint64_t)(state) << 32) | (uint32_t)(low))
#define KIN_TAG_STATE(tag) ((unsigned)((tag) >> 32) & 0xff)
#define KIN_TAG_KIND(tag) ((unsigned)((tag) >> 40) & 0xff)
#define KIN_TAG_LOW(tag) ((uint32_t)(tag))
#define KIN_TAG_CLASS_BITS ((uint64_t)0xff << 48)

/* Header of a block: in front of the payload of a small one, in the unit table
 * for a large one (so that all of a large block's pages can be given back). */
typedef struct kin_block_shm {
    _Atomic uint64_t tag;
    _Atomic uint64_t serial; /* 0 unless the block is in use */
    _Atomic uint64_t next;   /* FREE: granule of the next, only a hint; HAND: see refs.c */
    _Atomic uint64_t count;  /* OBJECT: holders; guarded by the refs mutex */
} kin_block_shm;

#define KIN_HEADER sizeof(kin_block_shm)

typedef struct kin_unit_shm {
    kin_block_shm block;
    _Atomic uint64_t touched; /* bytes at its start that may have pages */
    _Atomic int64_t used;     /* of a chunk: blocks in use, only a hint */
    uint64_t pad[2];
} kin_unit_shm;

/* Head of a free list: granule (36 bits), epoch (4), change counter (24). */
typedef _Atomic uint64_t kin_list_shm;

/* A short lock inside libkin's own structures: 0, or the holder's token, with
 * the top bit set if somebody may be parked on it.  Robust: see mutex.h. */
typedef struct kin_mutex_shm {
    _Atomic uint32_t word;
} kin_mutex_shm;

#define KIN_WAITERS 0x80000000u
#define KIN_TOKEN_MASK 0x7fffffffu

/* Stores that happen together or not at all, whoever dies: guarded by the
 * refs mutex, done again by the next holder if the last one died armed. */
#define KIN_JOURNAL_STORES 10
typedef struct kin_journal_shm {
    _Atomic uint32_t armed; /* how many stores are to be done; 0: none */
    uint32_t pad;
    struct {
        uint64_t off, value;
    } store[KIN_JOURNAL_STORES];
} kin_journal_shm;

/* The locker: what its socket holds, by counts that its mutex guards.  A parcel's number is how many
 * bytes of labels were ever sent before it.  See locker.c. */
typedef struct kin_locker_shm {
    kin_mutex_shm mutex;
    _Atomic uint32_t torn;        /* a holder died: the numbers are to be made anew */
    uint64_t device, inode;       /* which socket it is; written by the founder, as is… */
    uint64_t room;                /* the memory that it may take */
    _Atomic uint64_t sent, taken; /* number of the next parcel, and of the first one there */
    _Atomic uint64_t sweep_to;    /* dead ones have numbers below this */
    _Atomic uint64_t parcels;     /* how many there are */
} kin_locker_shm;

/* A member's word: state (bits 56–59), generation (32–49), and the token of
 * who is responsible for the row while its own process is not. */
enum kin__member_state {
    KIN_ROW_FREE = 0,
    KIN_ROW_PREPARED = 1, /* made ready by a parent that forks */
    KIN_ROW_ALIVE = 2,    /* its process runs, or died unnoticed */
    KIN_ROW_REAPING = 3,  /* is being cleared away by the guardian */
};
#define KIN_GENERATION_BITS 18
#define KIN_ROW(state, gen, guardian) \
    (((uint64_t)(state) << 56) | ((uint64_t)(gen) << 32) | (uint32_t)(guardian))
#define KIN_ROW_STATE(word) ((unsigned)((word) >> 56) & 0xf)
#define KIN_ROW_GEN(word) ((uint32_t)((word) >> 32) & ((1u << KIN_GENERATION_BITS) - 1))
#define KIN_ROW_GUARDIAN(word) ((uint32_t)(word) & KIN_TOKEN_MASK)

#define KIN_TOKEN(slot, gen) (((uint32_t)(slot) << KIN_GENERATION_BITS) | (gen))
#define KIN_TOKEN_SLOT(token) ((token) >> KIN_GENERATION_BITS)
#define KIN_TOKEN_GEN(token) ((token) & ((1u << KIN_GENERATION_BITS) - 1))

/* Flags of a member. */
enum {
    KIN_MEMBER_WATCHED = 1,    /* `life` is held by its main thread */
    KIN_MEMBER_LEFT = 2,       /* it ended normally */
    KIN_MEMBER_CLEAN = 4,      /* and gave everything back */
    KIN_MEMBER_LIFE_READY = 8, /* `life` has been initialised, once and for all */
};

typedef struct kin_member_shm {
    _Atomic uint64_t word;
    _Atomic uint32_t flags;
    _Atomic int32_t pid;
    _Atomic uint64_t started;     /* kin__os_process_started() */
    _Atomic uint64_t prepared_at; /* kin_clock() */
    _Atomic uint64_t holds;       /* offset of the first block of its holds */
    uint64_t pad[3];
    pthread_mutex_t life;               /* robust: the kernel marks it when its holder ends */
    char name[KIN_MEMBER_NAME_MAX + 1]; /* of its process, for people: kin_member_name_set */
    char fill[128 - KIN_MEMBER_NAME_MAX - 1 - sizeof(pthread_mutex_t)];
} kin_member_shm;

/* A block of a member's table of holds: offsets of objects, 0 for none. */
#define KIN_HOLDS_PER_BLOCK 500
typedef struct kin_holds_shm {
    _Atomic uint64_t next;
    _Atomic uint64_t entry[KIN_HOLDS_PER_BLOCK];
} kin_holds_shm;

typedef struct kin_arena_shm {
    /* Written once by the founder, before anyone else can see it. */
    uint64_t magic;
    uint32_t format;
    uint32_t members_len; /* rows of the member table */
    uint64_t reserved;    /* length of the mapping */
    uint64_t members_off, units_off;
    uint64_t first_unit, end_unit;
    uint64_t limit, warm_budget;
    uint8_t id[KIN_FAMILY_ID_LEN];
    uint64_t fill0[4];

    /* Growth. */
    _Atomic uint64_t top;      /* first unit never used; a hint that lags */
    _Atomic int64_t committed; /* bytes that have pages, as far as counted */
    _Atomic int64_t warm;      /* bytes of free large blocks that have pages */
    _Atomic int64_t chunks;    /* how many there are, and of how many no block is in use: hints */
    _Atomic int64_t idle;
    _Atomic uint64_t serial;    /* last one given out */
    _Atomic uint32_t rows_used; /* rows of the member table ever used */
    _Atomic uint32_t row_hint;  /* where to look for a free row next */
    kin_mutex_shm cooler;       /* who begins the free lists anew: chunks.c */
    uint32_t fill1[3];

    /* References. */
    kin_mutex_shm refs;
    uint32_t fill2;
    kin_journal_shm journal;
    _Atomic uint64_t transit; /* a place: the family's own transit, once it was needed */
    _Atomic uint64_t texts;   /* a place: the table of texts, likewise */
    kin_locker_shm locker;

    kin_list_shm warm_lists[KIN_CLASSES];
    kin_list_shm cold_lists[KIN_CLASSES]; /* pages given back: large blocks, chunks */
} kin_arena_shm;

_Static_assert(KIN_HEADER == 32, "payloads start 32 bytes behind a granule");
_Static_assert(sizeof(kin_unit_shm) == 64, "a row of the unit table is a line");
_Static_assert(sizeof(kin_member_shm) == 192, "rows of members keep their lines apart");
_Static_assert(sizeof(kin_holds_shm) + KIN_HEADER <= 4096, "holds fit a small class");
_Static_assert(sizeof(kin_arena_shm) <= 4096, "the header fits a page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");

#endif
