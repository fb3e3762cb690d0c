/* A dict in the arena: keys and values are bytes; in the order in which the keys were put in.
 *
 * Every function is safe from any thread of any member, and is one step for all others: they see
 * the dict as it was before or as it is after it, and so do those who live on when a member is
 * killed in the middle.  docs/shared-dict.md has the protocol.
 *
 * deadline: KIN_NOW or KIN_FOREVER, for the short mutex inside.  With KIN_NOW: -EAGAIN if another is
 * at work there just now, and nothing was done.  With KIN_FOREVER signals do not interrupt. */
#ifndef KIN_DICT_H
#define KIN_DICT_H

#include "entry.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kin_dict {
    kin_handle handle;
} kin_dict;

KIN_API KIN_NODISCARD kin_err kin_dict_create(kin_family *family, kin_dict *out);
KIN_API KIN_NODISCARD kin_err kin_dict_open(kin_family *family, const kin_ref *ref, kin_dict *out);
KIN_API void kin_dict_close(kin_dict *dict);

KIN_API uint64_t kin_dict_len(const kin_dict *dict);

/* The entry with this key.  -ENOENT if there is none; then `out` is as it was. */
KIN_API KIN_NODISCARD kin_err kin_dict_get(kin_dict *dict, const void *key, size_t key_len,
                                           kin_found *out, kin_deadline deadline);
/* out may be NULL everywhere: the entry's content is not wanted. */

enum {
    KIN_PUT_ALWAYS,
    KIN_PUT_NEW,  /* only if there is no such key: else -EEXIST, and `out` has what is there */
    KIN_PUT_SAME, /* only if the entry there has `serial` (0: there is none): else -ESTALE */
};
/* Put an entry in by its key, in place of what had the key before.  On success the dict has it, and
 * *entry is none; else it is the caller's still.
 * Errors: -EEXIST, -ESTALE (see above), KIN_EARENAFULL. */
KIN_API KIN_NODISCARD kin_err kin_dict_put(kin_dict *dict, kin_entry *entry, int how,
                                           uint64_t serial, kin_found *out, kin_deadline deadline);
/* Take an entry out.  -ENOENT. */
KIN_API KIN_NODISCARD kin_err kin_dict_take(kin_dict *dict, const void *key, size_t key_len,
                                            kin_found *out, kin_deadline deadline);
/* Take the one out that was put in last.  -ENOENT: it is empty. */
KIN_API KIN_NODISCARD kin_err kin_dict_take_last(kin_dict *dict, kin_found *out,
                                                 kin_deadline deadline);
/* The entry next in order (or, if `back`, in the reverse order) to the one numbered `number`, which
 * may be gone; from the beginning with 0, from the end with UINT64_MAX.  Who goes on with the number
 * that it finds meets all entries that are there all the time, and none twice.
 * *row: a hint, the caller's, 0 at first.  -ENOENT: there is none. */
KIN_API KIN_NODISCARD kin_err kin_dict_next(kin_dict *dict, uint64_t number, int back,
                                            uint64_t *row, kin_found *out, kin_deadline deadline);
KIN_API KIN_NODISCARD kin_err kin_dict_clear(kin_dict *dict, kin_deadline deadline);

#ifdef __cplusplus
}
#endif

#endif
