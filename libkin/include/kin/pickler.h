/* Pickles from C: a call for each value, in order.
 *
 *     kin_pickler p;
 *     kin_pickler_init(&p, KIN_PICKLE_PROTOCOL);
 *     kin_put_dict_begin(&p);
 *     kin_put_str(&p, "name", 4);
 *     kin_put_int(&p, 7);
 *     kin_put_end(&p);
 *     kin_pickled pickled;
 *     kin_err err = kin_pickler_end(&p, &pickled);
 *     … pickled.data, pickled.len …
 *     kin_pickler_fini(&p);
 *
 * The first call that fails makes all later ones fail with the same error: it is
 * enough to look at the last one's.  What is not the order of one whole value (an end
 * without a begin, a key without a value, two values side by side, none) is
 * KIN_EPICKLEORDER.  What comes out is always a pickle that Python's pickle loads and
 * pickletools.dis accepts, except that C can't know what is hashable.
 *
 * Nothing is shared unless asked for: kin_pickler_memoize() and kin_put_memo().
 *
 * Protocols 2 to 5; what a lower one has no opcode for is spelled as the standard
 * library spells it.  (0 and 1 are for Pythons before 2.3; value.h reads them.)
 *
 * Threads: a pickler belongs to one at a time. */
#ifndef KIN_PICKLER_H
#define KIN_PICKLER_H

#include "family.h"
#include "pickle.h"
#include "value.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kin_pickler {
    kin_writer writer; /* with a buffer from malloc */
    kin_err err;       /* the first one; 0: all is well */
    bool begun, ended;
    bool can_memoize;        /* a value has just been written, or an open list, dict or set */
    struct kin__nest *nests; /* the open containers, the outermost first */
    size_t nest_count, nest_room;
    size_t root_count;
    uint32_t memo_count;
    kin_buffer *buffers; /* out of band, in order */
    size_t buffer_count, buffer_room;
    kin_ref *refs; /* all that were put */
    size_t ref_count, ref_room;
} kin_pickler;

/* What was written; all of it the pickler's, valid until kin_pickler_fini(), or _reset(). */
typedef struct kin_pickled {
    const uint8_t *data;
    size_t len;
    const kin_buffer *buffers; /* that must travel beside the bytes; they are the caller's */
    size_t buffer_count;
    const kin_ref *refs; /* whose objects something must keep alive on the way: message.h */
    size_t ref_count;
} kin_pickled;

/* Begin.  Takes no memory yet.  A protocol that is not 2 to 5 is an error (-EINVAL) of what follows. */
KIN_API void kin_pickler_init(kin_pickler *p, uint8_t protocol);
/* End the pickle.  Errors: of any call so far; KIN_EPICKLEORDER. */
KIN_API KIN_NODISCARD kin_err kin_pickler_end(kin_pickler *p, kin_pickled *out);
/* Begin anew in the memory that there is. */
KIN_API void kin_pickler_reset(kin_pickler *p, uint8_t protocol);
KIN_API void kin_pickler_fini(kin_pickler *p);

/* Each may also fail with -ENOMEM. */

KIN_API kin_err kin_put_none(kin_pickler *p);
KIN_API kin_err kin_put_bool(kin_pickler *p, bool truth);
KIN_API kin_err kin_put_int(kin_pickler *p, int64_t n);
/* An int of any size: `len` bytes, two's complement, little-endian; none is 0.
 * -EOVERFLOW: 2 GiB or more. */
KIN_API kin_err kin_put_bigint(kin_pickler *p, const void *bytes, size_t len);
KIN_API kin_err kin_put_float(kin_pickler *p, double x);
/* UTF-8, or -EILSEQ; lone surrogates are allowed.  -EOVERFLOW: 4 GiB or more, below protocol 4. */
KIN_API kin_err kin_put_str(kin_pickler *p, const char *text, size_t len);
KIN_API kin_err kin_put_bytes(kin_pickler *p, const void *bytes, size_t len);
KIN_API kin_err kin_put_bytearray(kin_pickler *p, const void *bytes, size_t len);
/* Only named in the pickle, and listed in kin_pickled.  `data` must stay.
 * -ENOTSUP below protocol 5. */
KIN_API kin_err kin_put_buffer(kin_pickler *p, void *data, size_t len, bool readonly);

/* A container: what is put until its kin_put_end() is in it; a dict takes key and value in turn. */
KIN_API kin_err kin_put_list_begin(kin_pickler *p);
KIN_API kin_err kin_put_tuple_begin(kin_pickler *p);
KIN_API kin_err kin_put_dict_begin(kin_pickler *p);
KIN_API kin_err kin_put_set_begin(kin_pickler *p);
KIN_API kin_err kin_put_frozenset_begin(kin_pickler *p);
KIN_API kin_err kin_put_end(kin_pickler *p);

/* An object of the family, of which the loader gets a handle.  module, name: the Python class of
 * that handle, one that fits the kind; NULL: kinfolk's own for this kind, else -EINVAL.  The ref
 * alone keeps nothing alive: a message does (message.h). */
KIN_API kin_err kin_put_ref(kin_pickler *p, const kin_family *family, const kin_ref *ref,
                            const char *module, const char *name);

/* Give what was put last, or the container that was just begun, a number.  A tuple or a frozenset
 * can have one only after its end, as a set below protocol 4. */
KIN_API kin_err kin_pickler_memoize(kin_pickler *p, uint32_t *out);
/* The same object again.  KIN_EPICKLEORDER: there is no such number. */
KIN_API kin_err kin_put_memo(kin_pickler *p, uint32_t number);

/* A value that was read, with all that is in it.  What is shared in it stays shared; cycles, too
 * (a tuple that many lists contain which it contains takes time in proportion to the square of
 * their number).  Refs keep their family and state.  Buffers below protocol 5 are put as bytes or
 * as a bytearray.  Does not recurse. */
KIN_API kin_err kin_put_value(kin_pickler *p, const kin_value *value);

#ifdef __cplusplus
}
#endif

#endif
