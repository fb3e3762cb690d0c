/* A list in the arena.  What holds for dicts (dict.h) holds here: each function is one step for
 * all others, also when a member is killed in it; `deadline` and -EAGAIN are the same. */
#ifndef KIN_LIST_H
#define KIN_LIST_H

#include "entry.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kin_list {
    kin_handle handle;
} kin_list;

#define KIN_ANY_VERSION UINT64_MAX
#define KIN_LIST_MAX 0x7fffffffu /* items */

KIN_API KIN_NODISCARD kin_err kin_list_create(kin_family *family, kin_list *out);
KIN_API KIN_NODISCARD kin_err kin_list_open(kin_family *family, const kin_ref *ref, kin_list *out);
KIN_API void kin_list_close(kin_list *list);

KIN_API uint64_t kin_list_len(const kin_list *list);
/* Grows with each change. */
KIN_API uint64_t kin_list_version(const kin_list *list);

/* An index below zero counts from the end.  -ENOENT: there is no such item. */
KIN_API KIN_NODISCARD kin_err kin_list_get(kin_list *list, int64_t index, kin_found *out,
                                           kin_deadline deadline);
/* Put an entry in place of an item.  -ENOENT, KIN_EARENAFULL; then it is the caller's still. */
KIN_API KIN_NODISCARD kin_err kin_list_set(kin_list *list, int64_t index, kin_entry *entry,
                                           kin_deadline deadline);
/* KIN_EARENAFULL, KIN_ETOOLARGE (KIN_LIST_MAX). */
KIN_API KIN_NODISCARD kin_err kin_list_append(kin_list *list, kin_entry *entry,
                                              kin_deadline deadline);
/* One behind the other, with nothing in between.  *done: how many were appended, which are none
 * from then on; not all of them only after an error. */
KIN_API KIN_NODISCARD kin_err kin_list_extend(kin_list *list, kin_entry *entries, size_t count,
                                              size_t *done, kin_deadline deadline);
/* Before the item at `index`, clamped as Python's list.insert does. */
KIN_API KIN_NODISCARD kin_err kin_list_insert(kin_list *list, int64_t index, kin_entry *entry,
                                              kin_deadline deadline);
/* Take an item out.  out may be NULL.  -ENOENT. */
KIN_API KIN_NODISCARD kin_err kin_list_take(kin_list *list, int64_t index, kin_found *out,
                                            kin_deadline deadline);
/* Show the items from `start` to before `stop`, clamped as Python's slices are, as they are at one
 * moment.  `visit` is called with the mutex held, and is to be quick and call nothing of this
 * library; it drops what is found, or keeps it, moved elsewhere (value and key point into `buffer`
 * unless `hold` is open).  An error of its own ends it.  *version: the list's, then. */
typedef kin_err kin_list_visit(void *context, kin_found *found);
KIN_API KIN_NODISCARD kin_err kin_list_each(kin_list *list, int64_t start, int64_t stop,
                                            kin_list_visit *visit, void *context, uint64_t *version,
                                            kin_deadline deadline);
/* Make it consist of `count` items: each of `order` is the index of one that is there, used once at
 * the most, or -1 - i for entries[i], used once each.  What is not mentioned is dropped.  Only if its
 * version is `version` (KIN_ANY_VERSION: whatever it is), else -ESTALE; then, and after any error, the entries are the caller's still. */
KIN_API KIN_NODISCARD kin_err kin_list_rearrange(kin_list *list, uint64_t version,
                                                 const int64_t *order, size_t count,
                                                 kin_entry *entries, size_t entry_count,
                                                 kin_deadline deadline);

#ifdef __cplusplus
}
#endif

#endif
