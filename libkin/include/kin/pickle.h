/* Pickles: the opcodes, and a writer of bytes.
 *
 * A pickle is a program for a small stack machine.  This header says what its
 * instructions are, once, for all that read or write them, and has the writer,
 * on which both C programs and kinfolk's Python pickler stand: room, frames,
 * large payloads, the order of bytes.  What becomes of what is written is the
 * business of a kin_writer_ops.  C programs that have values rather than
 * opcodes in mind want pickler.h, to write, and value.h, to read.
 *
 * The format: PEP 307 (protocol 2), PEP 3154 (4), PEP 574 (5), and the
 * docstrings of the standard library's pickletools, the only full account.
 *
 * A writer belongs to one thread at a time. */
#ifndef KIN_PICKLE_H
#define KIN_PICKLE_H

#include <stdbool.h>
#include <string.h>

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KIN_PICKLE_PROTOCOL 5 /* the highest */

/* What follows an opcode.  Numbers are little-endian unless something else is said. */
typedef enum kin_pickle_arg {
    KIN_ARG_NONE,
    KIN_ARG_U1,
    KIN_ARG_U2,
    KIN_ARG_U4,
    KIN_ARG_I4,
    KIN_ARG_U8,
    KIN_ARG_F8,      /* IEEE double, big-endian */
    KIN_ARG_BYTES1,  /* a length of one byte, then so many bytes */
    KIN_ARG_BYTES4,  /* the same with four */
    KIN_ARG_SBYTES4, /* the same, and the length is signed: negative ones are errors */
    KIN_ARG_BYTES8,  /* the same with eight */
    KIN_ARG_LINE,    /* text up to a newline */
    KIN_ARG_LINES2,  /* two such lines */
} kin_pickle_arg;

/* X(name, byte, first protocol, argument) */
#define KIN_PICKLE_OPCODES(X)            \
    X(MARK, '(', 0, NONE)                \
    X(STOP, '.', 0, NONE)                \
    X(POP, '0', 0, NONE)                 \
    X(POP_MARK, '1', 1, NONE)            \
    X(DUP, '2', 0, NONE)                 \
    X(FLOAT, 'F', 0, LINE)               \
    X(INT, 'I', 0, LINE)                 \
    X(BININT, 'J', 1, I4)                \
    X(BININT1, 'K', 1, U1)               \
    X(LONG, 'L', 0, LINE)                \
    X(BININT2, 'M', 1, U2)               \
    X(NONE, 'N', 0, NONE)                \
    X(PERSID, 'P', 0, LINE)              \
    X(BINPERSID, 'Q', 1, NONE)           \
    X(REDUCE, 'R', 0, NONE)              \
    X(STRING, 'S', 0, LINE)              \
    X(BINSTRING, 'T', 1, SBYTES4)        \
    X(SHORT_BINSTRING, 'U', 1, BYTES1)   \
    X(UNICODE, 'V', 0, LINE)             \
    X(BINUNICODE, 'X', 1, BYTES4)        \
    X(APPEND, 'a', 0, NONE)              \
    X(BUILD, 'b', 0, NONE)               \
    X(GLOBAL, 'c', 0, LINES2)            \
    X(DICT, 'd', 0, NONE)                \
    X(EMPTY_DICT, '}', 1, NONE)          \
    X(APPENDS, 'e', 1, NONE)             \
    X(GET, 'g', 0, LINE)                 \
    X(BINGET, 'h', 1, U1)                \
    X(INST, 'i', 0, LINES2)              \
    X(LONG_BINGET, 'j', 1, U4)           \
    X(LIST, 'l', 0, NONE)                \
    X(EMPTY_LIST, ']', 1, NONE)          \
    X(OBJ, 'o', 1, NONE)                 \
    X(PUT, 'p', 0, LINE)                 \
    X(BINPUT, 'q', 1, U1)                \
    X(LONG_BINPUT, 'r', 1, U4)           \
    X(SETITEM, 's', 0, NONE)             \
    X(TUPLE, 't', 0, NONE)               \
    X(EMPTY_TUPLE, ')', 1, NONE)         \
    X(SETITEMS, 'u', 1, NONE)            \
    X(BINFLOAT, 'G', 1, F8)              \
    X(BINBYTES, 'B', 3, BYTES4)          \
    X(SHORT_BINBYTES, 'C', 3, BYTES1)    \
    X(PROTO, 0x80, 2, U1)                \
    X(NEWOBJ, 0x81, 2, NONE)             \
    X(EXT1, 0x82, 2, U1)                 \
    X(EXT2, 0x83, 2, U2)                 \
    X(EXT4, 0x84, 2, I4)                 \
    X(TUPLE1, 0x85, 2, NONE)             \
    X(TUPLE2, 0x86, 2, NONE)             \
    X(TUPLE3, 0x87, 2, NONE)             \
    X(NEWTRUE, 0x88, 2, NONE)            \
    X(NEWFALSE, 0x89, 2, NONE)           \
    X(LONG1, 0x8a, 2, BYTES1)            \
    X(LONG4, 0x8b, 2, SBYTES4)           \
    X(SHORT_BINUNICODE, 0x8c, 4, BYTES1) \
    X(BINUNICODE8, 0x8d, 4, BYTES8)      \
    X(BINBYTES8, 0x8e, 4, BYTES8)        \
    X(EMPTY_SET, 0x8f, 4, NONE)          \
    X(ADDITEMS, 0x90, 4, NONE)           \
    X(FROZENSET, 0x91, 4, NONE)          \
    X(NEWOBJ_EX, 0x92, 4, NONE)          \
    X(STACK_GLOBAL, 0x93, 4, NONE)       \
    X(MEMOIZE, 0x94, 4, NONE)            \
    X(FRAME, 0x95, 4, U8)                \
    X(BYTEARRAY8, 0x96, 5, BYTES8)       \
    X(NEXT_BUFFER, 0x97, 5, NONE)        \
    X(READONLY_BUFFER, 0x98, 5, NONE)

#define KIN_PICKLE_OPCODE_(name, byte, protocol, arg) KIN_OP_##name = (byte),
typedef enum kin_opcode { KIN_PICKLE_OPCODES(KIN_PICKLE_OPCODE_) } kin_opcode;
#undef KIN_PICKLE_OPCODE_

typedef struct kin_opcode_info {
    const char *name; /* as in pickletools; NULL: this byte is no opcode */
    uint8_t protocol; /* the first that has it */
    uint8_t arg;      /* kin_pickle_arg */
} kin_opcode_info;

/* By byte. */
KIN_API extern const kin_opcode_info kin_opcodes[256];

/* One instruction of a pickle, as offsets from the pickle's beginning. */
typedef struct kin_step {
    uint8_t opcode;
    size_t arg, arg_len; /* of a KIN_ARG_BYTES…: the payload, without its length; of lines: without
                            the last newline, and LINES2 has one between them */
    size_t next;         /* where the next instruction is */
} kin_step;

/* Look at the instruction at `off`, of which nothing is run: what its argument means is not
 * looked at, only where it ends.  All offsets in `out` are within the `len` bytes.
 * Errors: KIN_EPICKLE (no opcode; a length below zero), KIN_EPICKLESHORT (it does not end before
 * `len`).  Threads: safe. */
KIN_API KIN_NODISCARD kin_err kin_pickle_step(const uint8_t *pickle, size_t len, size_t off,
                                              kin_step *out);

/* -- The writer ------------------------------------------------------------------ */

/* From protocol 4 on a pickle comes in frames: a reader fetches each at once.  A
 * frame ends behind the first opcode with which it holds so many bytes. */
#define KIN_FRAME_TARGET 65536
/* Shorter ones are not worth their head. */
#define KIN_FRAME_MIN 4
#define KIN_FRAME_HEAD 9 /* bytes: the opcode and a length */

/* A payload (of a string, of bytes) of at least so many bytes stands outside of
 * frames, and may be taken from where it is. */
#define KIN_LARGE_PAYLOAD KIN_FRAME_TARGET

typedef struct kin_writer kin_writer;

/* What becomes of the bytes.  Each returns 0, or an error, which the writer hands on. */
typedef struct kin_writer_ops {
    /* Make room for `need` bytes behind w->at: the buffer may move.  Sets w->start,
     * w->at, w->limit; keeps the bytes from start to at. */
    kin_err (*grow)(kin_writer *w, size_t need);
    /* NULL, or: the bytes from w->start to w->at are complete and may be taken away;
     * then w->at = w->start. */
    kin_err (*drain)(kin_writer *w);
    /* NULL, or: `len` bytes at `data` come next.  Take them, so that they need not be
     * copied, and return 1; or return 0.  They stay where they are as long as their
     * owner does: what the owner is, only the caller knows. */
    kin_err (*take)(kin_writer *w, const void *data, size_t len);
} kin_writer_ops;

struct kin_writer {
    uint8_t *start, *at, *limit; /* the buffer, where the next byte goes, and the buffer's end */
    uint8_t *end;                /* limit; or at, if the next byte begins a frame */
    uint8_t *full;               /* where the open frame is full; beyond everything if none is */
    size_t frame;                /* offset of the open frame's head, or KIN_NO_FRAME */
    uint8_t protocol;
    bool framed; /* protocol 4 and higher, once begun */
    const kin_writer_ops *ops;
};

#define KIN_NO_FRAME SIZE_MAX

/* How the library's own code is marked that is too small and too often called for a
 * call. */
#define KIN_INLINE static inline

/* Begin a pickle in w, whose buffer (start, at, limit) and ops have been set. */
KIN_API KIN_NODISCARD kin_err kin_writer_begin(kin_writer *w, uint8_t protocol);
/* Write STOP, and end the last frame.  The pickle is now from start to at. */
KIN_API KIN_NODISCARD kin_err kin_writer_end(kin_writer *w);

/* The slow ways of the functions below. */
KIN_API KIN_NODISCARD kin_err kin_writer_room(kin_writer *w, size_t need);
KIN_API KIN_NODISCARD kin_err kin_writer_cut(kin_writer *w);
/* An opcode's head and its payload of KIN_LARGE_PAYLOAD bytes or more, outside of frames. */
KIN_API KIN_NODISCARD kin_err kin_writer_large(kin_writer *w, const uint8_t *head, size_t head_len,
                                               const void *data, size_t len);

/* Room for `need` bytes at w->at, within a frame if there are frames.  Whoever has it
 * writes, and moves w->at. */
KIN_INLINE KIN_NODISCARD kin_err kin_reserve(kin_writer *w, size_t need) {
    return (size_t)(w->end - w->at) < need ? kin_writer_room(w, need) : 0;
}

/* To be called where an object has been written: ends a frame that is full. */
KIN_INLINE KIN_NODISCARD kin_err kin_boundary(kin_writer *w) {
    return w->at < w->full ? 0 : kin_writer_cut(w);
}

/* Little-endian, whatever the machine is: compilers make one store of it. */
KIN_INLINE uint8_t *kin_store2(uint8_t *at, uint16_t n) {
    at[0] = (uint8_t)n;
    at[1] = (uint8_t)(n >> 8);
    return at + 2;
}

KIN_INLINE uint8_t *kin_store4(uint8_t *at, uint32_t n) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(n >> (8 * i));
    return at + 4;
}

KIN_INLINE uint8_t *kin_store8(uint8_t *at, uint64_t n) {
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(n >> (8 * i));
    return at + 8;
}

KIN_INLINE uint16_t kin_load2(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

KIN_INLINE uint32_t kin_load4(const uint8_t *at) {
    uint32_t n = 0;
    for (int i = 0; i < 4; i++) n |= (uint32_t)at[i] << (8 * i);
    return n;
}

KIN_INLINE uint64_t kin_load8(const uint8_t *at) {
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n |= (uint64_t)at[i] << (8 * i);
    return n;
}

KIN_INLINE double kin_load_double(const uint8_t *at) {
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n = n << 8 | at[i];
    double x;
    memcpy(&x, &n, 8);
    return x;
}

KIN_INLINE uint8_t *kin_store_double(uint8_t *at, double x) {
    uint64_t n;
    memcpy(&n, &x, 8);
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(n >> (8 * (7 - i)));
    return at + 8;
}

/* The stores below are for room that has been reserved; they return where the next
 * byte goes. */

/* At most 9 bytes.  Protocol 2 and higher for what does not fit in 32 bits. */
KIN_INLINE uint8_t *kin_store_int(uint8_t *at, int64_t n) {
    if (n >= 0 && n <= 0xff) {
        *at++ = KIN_OP_BININT1;
        *at++ = (uint8_t)n;
        return at;
    }
    if (n >= 0 && n <= 0xffff) {
        *at++ = KIN_OP_BININT2;
        return kin_store2(at, (uint16_t)n);
    }
    if (n >= INT32_MIN && n <= INT32_MAX) {
        *at++ = KIN_OP_BININT;
        return kin_store4(at, (uint32_t)n);
    }
    uint8_t len = 8; /* the fewest bytes of two's complement */
    while (len > 5 && n >> (8 * (len - 1) - 1) == n >> 63) len--;
    *at++ = KIN_OP_LONG1;
    *at++ = len;
    for (int i = 0; i < len; i++) *at++ = (uint8_t)((uint64_t)n >> (8 * i));
    return at;
}
#define KIN_INT_ROOM 10 /* bytes that kin_store_int may need */

/* Nine bytes. */
KIN_INLINE uint8_t *kin_store_float(uint8_t *at, double x) {
    *at++ = KIN_OP_BINFLOAT;
    return kin_store_double(at, x);
}

/* The head of a string of `len` bytes: at most 9.  Protocol 4 for what is 4 GiB or more. */
KIN_INLINE uint8_t *kin_store_str_head(uint8_t *at, size_t len, uint8_t protocol) {
    if (len <= 0xff && protocol >= 4) {
        *at++ = KIN_OP_SHORT_BINUNICODE;
        *at++ = (uint8_t)len;
        return at;
    }
    if (len <= UINT32_MAX) {
        *at++ = KIN_OP_BINUNICODE;
        return kin_store4(at, (uint32_t)len);
    }
    *at++ = KIN_OP_BINUNICODE8;
    return kin_store8(at, len);
}

/* The head of `len` bytes: at most 9.  Protocol 3, and 4 for what is 4 GiB or more. */
KIN_INLINE uint8_t *kin_store_bytes_head(uint8_t *at, size_t len) {
    if (len <= 0xff) {
        *at++ = KIN_OP_SHORT_BINBYTES;
        *at++ = (uint8_t)len;
        return at;
    }
    if (len <= UINT32_MAX) {
        *at++ = KIN_OP_BINBYTES;
        return kin_store4(at, (uint32_t)len);
    }
    *at++ = KIN_OP_BINBYTES8;
    return kin_store8(at, len);
}

/* One opcode without an argument. */
KIN_INLINE KIN_NODISCARD kin_err kin_put_op(kin_writer *w, kin_opcode op) {
    kin_err err = kin_reserve(w, 1);
    if (err < 0) return err;
    *w->at++ = (uint8_t)op;
    return 0;
}

/* `len` bytes as they are. */
KIN_INLINE KIN_NODISCARD kin_err kin_put_raw(kin_writer *w, const void *data, size_t len) {
    kin_err err = kin_reserve(w, len);
    if (err < 0) return err;
    memcpy(w->at, data, len);
    w->at += len;
    return 0;
}

/* A head and its payload, which is large or not. */
KIN_INLINE KIN_NODISCARD kin_err kin_put_payload(kin_writer *w, const uint8_t *head,
                                                 size_t head_len, const void *data, size_t len) {
    if (len >= KIN_LARGE_PAYLOAD) return kin_writer_large(w, head, head_len, data, len);
    kin_err err = kin_reserve(w, head_len + len);
    if (err < 0) return err;
    memcpy(w->at, head, head_len);
    memcpy(w->at + head_len, data, len);
    w->at += head_len + len;
    return 0;
}

#ifdef __cplusplus
}
#endif

#endif
