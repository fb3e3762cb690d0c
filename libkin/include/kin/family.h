/* The family: its arena, its members, and references to what lives in it.
 *
 * The arena is one sparse memfd, mapped once by each member, addressed by
 * offsets.  A member is a process; the kernel itself keeps the word on which
 * of them are alive, and what a dead one held is found and given back by the
 * living (kin_family_reap, or whoever stumbles on it).
 *
 * One process is in at most one family.  After fork() the child is a member of
 * its own, with all the handles of its parent; handles stay valid as they are.
 */
#ifndef KIN_FAMILY_H
#define KIN_FAMILY_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KIN_FAMILY_ID_LEN 16

/* This process's view of its family. */
typedef struct kin_family kin_family;

/* How a family is founded; zeroed means the defaults. */
typedef struct kin_family_options {
    /* Bytes that the arena may come to hold.  0: KINFOLK_ARENA_LIMIT from the
     * environment (a number with an optional K, M, G or T), else three
     * quarters of the memory of the machine or of its cgroup. */
    uint64_t limit;
    /* Bytes of address space to reserve.  0: as much as is sensible, with
     * smaller and smaller tries where address space is limited. */
    uint64_t reserve;
    /* Bytes of freed large blocks that keep their pages.  0: a sixteenth of
     * the limit, at most 1 GiB. */
    uint64_t warm;
} kin_family_options;

/* Found a family with this process as its first member.
 * options: may be NULL.
 * Errors: KIN_EINFAMILY, KIN_EARENAMAP, KIN_EBADLIMIT, -ENOMEM, -EMFILE, -ENFILE.
 * Threads: safe.  Fork: children are members. */
KIN_API KIN_NODISCARD kin_err kin_family_found(const kin_family_options *options, kin_family **out);

/* Join the family that has this arena and this locker, both descriptors.  On success
 * the family owns them and makes them close-on-exec.  The bytes of the arena are checked
 * before use.
 * Errors: KIN_EINFAMILY, KIN_EBADARENA (also: another family's locker), KIN_EARENAMAP,
 * KIN_EMEMBERS. */
KIN_API KIN_NODISCARD kin_err kin_family_join(int arena, int locker, kin_family **out);

/* The family that this process is a member of, or NULL. */
KIN_API kin_family *kin_family_self(void);

/* The normal end of this member: its references are given back, locks that it
 * still holds stay held (another process may release them).  From then on this
 * process can use what it holds but can make, open or send nothing (KIN_ELEFT).
 * Call it last; doing so twice is fine. */
KIN_API void kin_family_leave(kin_family *family);

/* The descriptors that a child that is executed must be given in order to join; owned by
 * the family. */
KIN_API void kin_family_fds(const kin_family *family, int *arena, int *locker);
/* KIN_FAMILY_ID_LEN random bytes, the same in every member. */
KIN_API const uint8_t *kin_family_id(const kin_family *family);
/* This member's token: never 0, used by no other member before or after
 * (it takes 2^31 starts for one to come again). */
KIN_API uint32_t kin_family_member(const kin_family *family);

/* Find the members that died and give back what they held.
 * Returns how many were buried now.  Threads, Processes: safe, any number at once. */
KIN_API int kin_family_reap(kin_family *family);

/* Is the member with this token alive? */
KIN_API int kin_member_is_alive(kin_family *family, uint32_t token);
/* The process id of the member with this token, 0 if it is gone. */
KIN_API int kin_member_pid(kin_family *family, uint32_t token);

#define KIN_MEMBER_NAME_MAX 47 /* bytes */
/* Call this process something that says more than its id, in news of its death.  Of a longer name
 * the beginning is kept.  A forked child begins without a name. */
KIN_API void kin_member_name_set(kin_family *family, const char *name);

typedef struct kin_family_stats {
    uint64_t reserved;  /* bytes of address space */
    uint64_t limit;     /* bytes that may be used */
    uint64_t committed; /* bytes of memory that the kernel has given */
    uint64_t in_use;    /* bytes of blocks that are not free */
    uint64_t blocks;    /* how many those are */
    uint64_t objects;   /* how many of them are reference-counted objects */
    uint32_t members;   /* members alive */
    uint32_t waiting;   /* descriptors in the locker */
} kin_family_stats;

/* Takes a walk over the arena: for tests and for the curious. */
KIN_API void kin_family_stats_read(kin_family *family, kin_family_stats *out);

/* -- References -------------------------------------------------------- */

enum kin_kind {
    KIN_KIND_LOCK = 1,
    KIN_KIND_RLOCK,
    KIN_KIND_SEMAPHORE,
    KIN_KIND_EVENT,
    KIN_KIND_QUEUE,
    KIN_KIND_MEMORY,     /* a plain piece of shared memory */
    KIN_KIND_BLOB,       /* a message; never shared, always in one pair of hands */
    KIN_KIND_DESCRIPTOR, /* what a descriptor in the locker is called: locker.h */
    KIN_KIND_TRANSIT,    /* holds for messages under way outside of the arena: transit.h */
    KIN_KIND_CONDITION,
    KIN_KIND_BARRIER,
    KIN_KIND_DICT,
    KIN_KIND_LIST,
    KIN_KINDS_NAMED, /* one more than the last of them */
};

/* The name of an object of the family: what a message carries. */
typedef struct kin_ref {
    uint64_t off;    /* where in the arena */
    uint64_t serial; /* never used twice in a family: a stale name is noticed */
    uint32_t kind;   /* enum kin_kind */
    uint32_t pad;
} kin_ref;

/* A counted hold of this process on an object.  Plain data, in the caller's
 * storage; every object type embeds one.  Valid in forked children too. */
typedef struct kin_handle {
    kin_family *family; /* NULL: not open */
    void *shm;          /* the object's shared layout */
    kin_ref ref;
    uint32_t hold; /* index of the hold in this member's table */
} kin_handle;

/* Open one more hold on the object that `ref` names, of the kind `ref->kind`.
 * Errors: KIN_ESTALE, KIN_EKIND, KIN_EARENAFULL, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_handle_open(kin_family *family, const kin_ref *ref,
                                              kin_handle *out);
/* Give the hold back; the last one frees the object.  On a handle that is not
 * open: nothing. */
KIN_API void kin_handle_close(kin_handle *handle);

/* A plain piece of shared memory of `len` bytes, zeroed, aligned to 64. */
KIN_API KIN_NODISCARD kin_err kin_memory_create(kin_family *family, uint64_t len, kin_handle *out);
/* Let it live without holders, until kin_memory_unlink: so that others can come to it by its ref,
 * which holds nothing.  Again is fine.
 * Errors: -ENOENT (it was unlinked), KIN_ELEFT, KIN_ENOFAMILY. */
KIN_API KIN_NODISCARD kin_err kin_memory_link(const kin_handle *memory);
/* From now on it goes with its last holder.
 * Errors: -ENOENT (it was unlinked before); KIN_ELEFT, KIN_ENOFAMILY: nothing was done. */
KIN_API KIN_NODISCARD kin_err kin_memory_unlink(const kin_handle *memory);
KIN_API int kin_memory_is_unlinked(const kin_handle *memory);
/* Where it is mapped in this process, and its length as asked for. */
KIN_API void *kin_memory_data(const kin_handle *memory);
KIN_API uint64_t kin_memory_len(const kin_handle *memory);

/* -- Blobs: messages in the arena ---------------------------------------- */

/* A block with a payload of bytes and the references that the payload
 * mentions, each of which it keeps alive.  A blob is in exactly one pair of
 * hands: a member's, or a queue's while it is under way.  If the member dies,
 * the blob and its references are given back. */
typedef struct kin_blob {
    kin_family *family; /* NULL: not open */
    uint8_t *data;      /* len bytes, aligned to 64, in the arena */
    uint64_t len;
    kin_ref ref;
    uint32_t holder; /* the member in whose hands it was when this was opened */
} kin_blob;

/* A blob for `len` bytes (not zeroed) and up to `ref_count` references.
 * Errors: KIN_EARENAFULL, KIN_ETOOLARGE, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_blob_create(kin_family *family, uint64_t len, uint32_t ref_count,
                                              kin_blob *out);
/* Add a reference; the blob counts as a holder of the object.
 * Errors: KIN_ESTALE, KIN_EKIND, -ENOSPC (more than announced). */
KIN_API KIN_NODISCARD kin_err kin_blob_add_ref(kin_blob *blob, const kin_ref *ref);
/* Take over a blob that another living or dead member has in its hands.
 * Errors: KIN_ESTALE (given back, or taken by someone else), KIN_EKIND. */
KIN_API KIN_NODISCARD kin_err kin_blob_claim(kin_family *family, const kin_ref *ref, kin_blob *out);
/* Keep the payload for as long as there are views of it: the blob becomes an
 * object, held by `out`, whose references are given back at once.  Forked
 * children hold it too, and see the same memory.  On success `blob` is closed;
 * its data stay where they are.
 * Errors: KIN_ESTALE (not in this member's hands), KIN_EARENAFULL, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_blob_keep(kin_blob *blob, kin_handle *out);
/* To be called before a fork, if parent and child shall not see each other's
 * changes of a kept blob: from now on each process that has it has it to itself,
 * copied page by page when it is written.  It must be rejoined before the handle
 * is closed, in each of them.  Once only: what was changed since would be lost.
 * Errors: -ENOTSUP (too small: it shares its pages with others), -ENOMEM. */
KIN_API KIN_NODISCARD kin_err kin_blob_split(const kin_handle *kept);
/* The end of it: the memory is the family's again.  -ENOMEM: the handle must stay
 * open, for the block may not be used again by this process. */
KIN_API KIN_NODISCARD kin_err kin_blob_rejoin(const kin_handle *kept);
/* Give the blob and its references back, if it is still in this member's
 * hands; else nothing but closing the handle.  On one not open: nothing. */
KIN_API void kin_blob_free(kin_blob *blob);

#ifdef __cplusplus
}
#endif

#endif
