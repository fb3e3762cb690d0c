/* What the pickler's files share. */
#ifndef KIN_PICKLE_PICKLER_H
#define KIN_PICKLE_PICKLER_H

#include <kin/pickler.h>

/* An open container. */
typedef struct kin__nest {
    uint8_t type;   /* kin_type */
    bool marked;    /* a MARK waits for its opcode */
    size_t count;   /* items so far, in a dict keys and values */
    size_t batched; /* how many of them are behind the MARK */
} kin__nest;

/* So many items, or pairs, go in at once: the stack of who loads it stays small. */
#define KIN__BATCH 1000

/* Note the first error; returns it. */
kin_err kin__pickler_fail(kin_pickler *p, kin_err err);
/* Before each value: is there a place for it?  Writes the MARK that it stands behind. */
kin_err kin__put_begin(kin_pickler *p);
/* After each value, with what became of it: it may be memoised, and its frame may be full. */
kin_err kin__put_done(kin_pickler *p, kin_err err);
/* A ref by the bytes of the family's id, without its end: BUILD may follow. */
kin_err kin__put_open(kin_pickler *p, const uint8_t *family, const kin_ref *ref, const char *module,
                      const char *name);
/* Open a container; what begins it has been written. */
kin_err kin__push_nest(kin_pickler *p, kin_type type);
/* Close the open tuple or frozenset, but as if it had never been begun: a value that has been put
 * meanwhile stands for it. */
kin_err kin__put_instead(kin_pickler *p, uint32_t number);

/* Grow `*items`, of `item_size` bytes each, from `*room` to more than `count`. */
kin_err kin__grow_array(void **items, size_t *room, size_t count, size_t item_size);

#endif
