/* What the files of this room, and the rooms above, know of a family. */
#ifndef KIN_FAMILY_INTERNAL_H
#define KIN_FAMILY_INTERNAL_H

#include <stdbool.h>

#include "layout.h"

/* This process's end of its family.  One per process, never freed, so that a
 * handle can always look at it. */
struct kin_family {
    uint8_t *base;
    kin_arena_shm *arena;
    kin_member_shm *members;
    kin_unit_shm *units;
    int fd;     /* of the arena */
    int locker; /* of the locker's socket */
    int cpus;
    _Atomic uint32_t token; /* 0: this process is no member (a fork that failed) */
    _Atomic bool left;
    _Atomic int64_t hands; /* blocks in this member's hands, its holds left out */

    pthread_mutex_t local; /* guards what follows, and is held across fork */
    struct {
        kin_holds_shm **block;
        uint32_t *in_use; /* of each block */
        uint32_t block_count;
        uint32_t used; /* entries ever used */
        uint32_t *spare;
        uint32_t spare_count, spare_room;
    } holds;
    /* A fork under way: the child's row and its copy of the holds. */
    uint32_t child_token;
    kin_holds_shm **child_block;

    /* Doorbells of this process (doorbell.c). */
    struct {
        pthread_mutex_t lock; /* guards what follows, and is held across fork */
        struct kin_doorbell *first, *kept;
        uint32_t number; /* of the next one */
        int ringer;
        uint64_t ringer_device, ringer_inode;
    } bells;
};

static inline void *kin__at(const kin_family *family, uint64_t off) {
    return family->base + off;
}

static inline uint64_t kin__off(const kin_family *family, const void *address) {
    return (uint64_t)((const uint8_t *)address - family->base);
}

static inline uint32_t kin__token(const kin_family *family) {
    return atomic_load_explicit(&family->token, memory_order_relaxed);
}

static inline uint64_t kin__min(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static inline uint64_t kin__max(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* 0, or why this member may not make, open or send anything. */
static inline kin_err kin__may(const kin_family *family) {
    if (!kin__token(family)) return KIN_ENOFAMILY;
    return atomic_load_explicit(&family->left, memory_order_relaxed) ? KIN_ELEFT : 0;
}

#endif
