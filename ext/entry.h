/* Python objects as entries of dicts and lists in the arena. */
#ifndef KINX_ENTRY_H
#define KINX_ENTRY_H

#include "key.h"
#include "message.h"

/* Make the entry of an object, pickled; `key` (NULL for a list's) is pickled, too, unless its bytes
 * say all.  Raises what pickling raises, MemoryError. */
int kinx_entry_init(kinx_state *st, kinx_key *key, PyObject *key_obj, PyObject *value,
                    kin_entry *out);
/* What was found, as an object; it is dropped in any case.  New references. */
PyObject *kinx_found_value(kinx_state *st, kin_found *found);
PyObject *kinx_found_key(kinx_state *st, kin_found *found);
PyObject *kinx_found_item(kinx_state *st, kin_found *found); /* (key, value) */

/* A call of libkin on a dict or list, which names its own deadline `until`: at once if nobody else
 * is at work there, else without the GIL. */
#define KINX_TABLE(err, call)           \
    do {                                \
        kin_deadline until = KIN_NOW;   \
        (err) = (call);                 \
        if ((err) == -EAGAIN) {         \
            until = KIN_FOREVER;        \
            Py_BEGIN_ALLOW_THREADS(err) \
            = (call);                   \
            Py_END_ALLOW_THREADS        \
        }                               \
    } while (0)

#endif
