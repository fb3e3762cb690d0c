/* Pickles into plain C values, without running code.
 *
 * What can be read is data: None, bool, int, float, str, bytes, bytearray, list,
 * tuple, dict, set, frozenset, out-of-band buffers, and refs to the family's
 * objects, from pickles of every protocol.  What a pickle would have to import or
 * call anything for is an error, KIN_EPICKLECODE.  docs/pickle-format.md says which
 * forms are known.
 *
 * The bytes may be hostile.  Whatever they are, the reader returns, takes memory in
 * proportion to their number, and neither it nor kin_values_fini() recurses.
 *
 *     kin_values values;
 *     kin_read_error error;
 *     kin_err err = kin_pickle_read(data, len, NULL, &values, &error);
 *     if (err < 0) { … "%s at byte %zu: %s", kin_strerror(err), error.off, error.reason … }
 *     const kin_value *name = kin_value_get(values.root, "name");
 *     if (name && name->type == KIN_STR) puts(name->text);
 *     kin_values_fini(&values);
 *
 * Threads: different kin_values are independent; values once read are never
 * changed, so any number of threads may look at them. */
#ifndef KIN_VALUE_H
#define KIN_VALUE_H

#include <stdbool.h>

#include "base.h"
#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kin_type {
    KIN_NONE,
    KIN_BOOL,
    KIN_INT,    /* fits in 64 bits */
    KIN_BIGINT, /* does not */
    KIN_FLOAT,
    KIN_STR,
    KIN_BYTES,
    KIN_BYTEARRAY,
    KIN_BUFFER, /* out of band: the bytes are the caller's */
    KIN_LIST,
    KIN_TUPLE,
    KIN_SET,
    KIN_FROZENSET,
    KIN_DICT,
    KIN_REF,
} kin_type;

typedef struct kin_value kin_value;

/* An object of the family, as a pickle names it. */
typedef struct kin_named_ref {
    uint8_t family[KIN_FAMILY_ID_LEN];
    kin_ref ref;
    const char *module, *name; /* the class that a Python program gives the handle */
    const kin_value *state;    /* attributes that Python's handle had; NULL: none */
} kin_named_ref;

/* A value.  What was one object in the sender and was met twice is one kin_value, met
 * twice: compare pointers.  (None, True, False and () may be the same ones everywhere.)
 *
 * A value may be reached on so many ways that walking all of them does not end in a
 * lifetime, from a pickle of a few hundred bytes: where that matters, remember what
 * has been seen. */
struct kin_value {
    uint8_t type;      /* kin_type */
    bool readonly;     /* of a KIN_BUFFER */
    uint8_t inside[2]; /* the reader's */
    uint32_t depth;    /* how deep containers lie in one another here: 0 for what is none */
    size_t len;        /* of bytes, or of items; of pairs in a dict */
    union {
        bool truth;      /* KIN_BOOL */
        int64_t integer; /* KIN_INT */
        double real;     /* KIN_FLOAT */
        /* KIN_STR: UTF-8 of `len` bytes, and a zero behind them; zeros may be among them.  A lone
         * surrogate, which Python's strings may have, is three bytes, as "surrogatepass" has it. */
        const char *text;
        /* KIN_BYTES, KIN_BYTEARRAY, and a zero behind them.  KIN_BIGINT: two's complement, little-
         * endian, the fewest bytes that will do.  KIN_BUFFER: what the caller gave; may be NULL
         * if it is empty. */
        const uint8_t *bytes;
        /* The items; of a dict 2 * len of them, key and value in turn.  In the order of the
         * pickle, and nothing is compared: what is twice in a set or among the keys of a
         * dict stays so, and the last one is what Python would have. */
        const kin_value *const *items;
        const kin_named_ref *ref; /* KIN_REF */
    };
};

/* What goes out of band: `len` bytes that a pickle of protocol 5 only counts. */
typedef struct kin_buffer {
    void *data;
    size_t len;
    bool readonly;
} kin_buffer;

/* Zeroed means the defaults; so does NULL in place of it. */
typedef struct kin_read_options {
    /* How deep containers may lie in one another.  0: 1000. */
    uint32_t depth;
    /* How many values the pickle may make, those that it drops again included.
     * 0: as many as it has bytes. */
    size_t items;
    /* Bytes of memory, at most, at any time.  0: 64 for each byte of the pickle, and 64 KiB:
     * what no honest pickle comes near. */
    size_t memory;
    /* May a value contain itself?  Not unless asked for: then code that walks values
     * may recurse, `depth` calls at most. */
    bool cycles;
    /* The out-of-band buffers, in the order of the pickle's asking.  It need not ask for all. */
    const kin_buffer *buffers;
    size_t buffer_count;
} kin_read_options;

/* All the values of a pickle, in one pool. */
typedef struct kin_values {
    const kin_value *root;
    size_t len;    /* bytes of the pickle: it ends with its STOP, whatever comes behind */
    size_t memory; /* bytes of the pool */
    void *pool;
} kin_values;

typedef struct kin_read_error {
    size_t off;         /* of the instruction that could not be done */
    const char *reason; /* a static string; never NULL */
} kin_read_error;

/* Read the pickle at the beginning of the `len` bytes at `data`.
 * options, error: may be NULL.  The values point into their own pool, and buffers where
 * the caller has them; `data` is not needed any more.
 * Errors: KIN_EPICKLE (damaged), KIN_EPICKLESHORT (ends too early), KIN_EPICKLECODE (no plain
 * data), KIN_EPICKLELIMIT (a limit of `options`), -ENOMEM. */
KIN_API KIN_NODISCARD kin_err kin_pickle_read(const void *data, size_t len,
                                              const kin_read_options *options, kin_values *out,
                                              kin_read_error *error);
/* Free all of them.  On zeroed ones: nothing. */
KIN_API void kin_values_fini(kin_values *values);

/* The value of a str key in a dict; the last if there are many, as Python has it.  NULL if there is
 * none, or `dict` is NULL or no dict.  Looks at each pair. */
KIN_API const kin_value *kin_value_get(const kin_value *dict, const char *key);
/* "dict" and the like: the type's name in Python ("buffer", "ref"). */
KIN_API const char *kin_value_type_name(const kin_value *value);
/* The ref of a KIN_REF, to be opened: kin_queue_open() and others.
 * Errors: -EINVAL (no KIN_REF), KIN_EFOREIGN (of another family than `family`). */
KIN_API KIN_NODISCARD kin_err kin_value_ref(const kin_value *value, const kin_family *family,
                                            kin_ref *out);

#ifdef __cplusplus
}
#endif

#endif
