/* Keys of a SharedDict as bytes that are equal just when the keys are, in every process. */
#ifndef KINX_KEY_H
#define KINX_KEY_H

#include "state.h"

typedef struct kinx_key {
    uint8_t *bytes; /* in `few`, or of the heap */
    size_t len, room;
    bool is_exact; /* the bytes say all there is to the key: kinx_key_load gives it back */
    uint8_t few[120];
} kinx_key;

/* Raises TypeError for a key that can't be hashed, or whose equality no other process could tell.
 * Then there is nothing to finish. */
int kinx_key_init(kinx_state *st, kinx_key *key, PyObject *obj);
static inline void kinx_key_fini(kinx_key *key) {
    if (key->bytes != key->few) PyMem_Free(key->bytes);
}
/* The key that was exact.  New reference; raises ValueError for bytes that are none. */
PyObject *kinx_key_load(const uint8_t *bytes, size_t len);

#endif
