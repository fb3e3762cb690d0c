/* The stack machine that reads pickles: what its files share.
 *
 *   reader.c        the instructions: stack, marks, memo
 *   reader_make.c   values: leaves and containers
 *   reader_calls.c  the few names and calls that mean plain data
 *   reader_check.c  the look at the finished values, where one is needed
 *
 * A value on the stack or in the memo may be a KIN__NAME, or a tuple that has one in
 * it: a class or a function, good only as a part of a call that is known.  Nothing
 * else takes it in, so none is left in what the caller gets.
 *
 * The depth of a container is kept while it is built.  That is exact as long as
 * nothing is put into what has been put somewhere itself: to do so a pickle must
 * have it twice, by the memo or DUP, which marks it KIN__SHARED.  When such a one is
 * changed, the reader is `tangled`, and looks at all of it in the end. */
#ifndef KIN_PICKLE_READER_H
#define KIN_PICKLE_READER_H

#include <kin/pickle.h>
#include <kin/value.h>

#include "pool.h"

enum {
    KIN__NAME = KIN_REF + 1
}; /* kin_value.type: its module and name are in `ref`, its
                                     instruction's offset in `len` */

/* kin_value.inside[0] */
enum {
    KIN__SHARED = 1,     /* met more than once */
    KIN__NAMES = 2,      /* a KIN__NAME, or a tuple with one in it */
    KIN__UNHASHABLE = 4, /* of tuples: something in it is */
    KIN__OPEN = 8,       /* reader_check.c is looking at what is in it, */
    KIN__DONE = 16,      /* or has done so */
};

typedef struct kin__reader {
    const uint8_t *in;
    size_t len;
    size_t off;    /* of the instruction that is done now */
    kin_step step; /* it */
    kin__pool pool;
    kin_read_options options; /* the defaults filled in */
    kin_value **stack;
    size_t count, room;
    size_t fence; /* nothing below the topmost mark is reached */
    size_t *marks;
    size_t mark_count, mark_room;
    kin_value **memo; /* NULL where nothing was put */
    size_t memo_room, memo_count;
    size_t made; /* values */
    size_t buffers_used;
    bool tangled;
    size_t error_off; /* if not SIZE_MAX: where the error is to be said to be */
    const char *reason;
} kin__reader;

/* Notes why; returns `err`. */
kin_err kin__fail(kin__reader *r, kin_err err, const char *reason);
/* The same where kin__pool has said no. */
kin_err kin__fail_memory(kin__reader *r);

/* From now on it is met more than once. */
void kin__share(const kin_value *value);

/* -- reader_make.c ------------------------------------------------------------------ */

extern const kin_value kin__none, kin__true, kin__false, kin__empty_tuple;

/* A value of this type, otherwise zeroed; NULL if that failed, and then it is noted in `*err`. */
kin_value *kin__make(kin__reader *r, uint8_t type, kin_err *err);
/* `len` bytes and a zero behind them; NULL as above. */
uint8_t *kin__make_bytes(kin__reader *r, size_t len, kin_err *err);

/* The makers push what they make. */
kin_err kin__push(kin__reader *r, const kin_value *value);
kin_err kin__push_int(kin__reader *r, int64_t n);
kin_err kin__push_float(kin__reader *r, double x);
kin_err kin__push_bigint(kin__reader *r, const uint8_t *bytes, size_t len);
kin_err kin__push_str(kin__reader *r, const uint8_t *text, size_t len);
kin_err kin__push_bytes(kin__reader *r, kin_type type, const uint8_t *bytes, size_t len);
kin_err kin__push_int_line(kin__reader *r);
kin_err kin__push_long_line(kin__reader *r);
kin_err kin__push_float_line(kin__reader *r);
kin_err kin__push_unicode_line(kin__reader *r);
kin_err kin__push_quoted_line(kin__reader *r);
kin_err kin__push_old_str(kin__reader *r, const uint8_t *text, size_t len);
kin_err kin__push_buffer(kin__reader *r);
/* A container of `count` values, or 2 * count of a dict, which it copies. */
kin_err kin__push_items(kin__reader *r, kin_type type, const kin_value *const *items, size_t count);
/* Add as many to what is there already, which is of this type. */
kin_err kin__add_items(kin__reader *r, kin_value *to, const kin_value *const *items, size_t count);

/* -- reader_calls.c ----------------------------------------------------------------- */

kin_err kin__push_name_lines(kin__reader *r);
/* STACK_GLOBAL: both are popped already. */
kin_err kin__push_name(kin__reader *r, const kin_value *module, const kin_value *name);
kin_err kin__call(kin__reader *r, const kin_value *callee, const kin_value *args);
kin_err kin__build(kin__reader *r, kin_value *object, const kin_value *state);
/* A name has got where none may be: the error is the one that was first. */
kin_err kin__fail_name(kin__reader *r, const kin_value *value);

/* -- reader_check.c ----------------------------------------------------------------- */

/* Work out the depths anew, and find what contains itself. */
kin_err kin__check_tangle(kin__reader *r, kin_value *root);

#endif
