/* A look ahead: which of the memo's entries will be asked for.
 *
 * The standard pickler memoises nearly everything, and hardly anything is asked for again.  A
 * pickle has no jumps, so that walking over the opcodes to come tells for certain.  What is
 * not asked for need not be kept, and a container that is not can be made when it is known
 * what is in it.  The walk takes a fifth of the time that running the opcodes takes:
 * it pays where there are instances, whose state then needs no dict.
 *
 * Only for a pickle that is all there, and whose memo nobody sees. */
#include "load.h"

/* How an opcode's argument is to be passed over, by its kin_pickle_arg: bytes, or one of: */
enum { SIZE1 = 16, SIZE4, SIZE8, LINE, LINES2, UNKNOWN };

static const uint8_t by_arg[] = {
    [KIN_ARG_NONE] = 0,        [KIN_ARG_U1] = 1,         [KIN_ARG_U2] = 2,
    [KIN_ARG_U4] = 4,          [KIN_ARG_I4] = 4,         [KIN_ARG_U8] = 8,
    [KIN_ARG_F8] = 8,          [KIN_ARG_BYTES1] = SIZE1, [KIN_ARG_BYTES4] = SIZE4,
    [KIN_ARG_SBYTES4] = SIZE4, [KIN_ARG_BYTES8] = SIZE8, [KIN_ARG_LINE] = LINE,
    [KIN_ARG_LINES2] = LINES2,
};

void kinx_ahead_table(uint8_t table[256]) {
    memset(table, UNKNOWN, 256);
#define SET_(name, byte, protocol, arg) table[byte] = by_arg[KIN_ARG_##arg];
    KIN_PICKLE_OPCODES(SET_)
#undef SET_
}

/* Behind the next newline, or NULL. */
static const uint8_t *pass_line(const uint8_t *at, const uint8_t *end) {
    const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
    return newline ? newline + 1 : NULL;
}

/* Behind an argument of an odd kind, or NULL if there is not that much. */
static const uint8_t *pass(uint8_t kind, const uint8_t *at, const uint8_t *end) {
    size_t there = (size_t)(end - at), head = kind == SIZE1 ? 1 : kind == SIZE4 ? 4 : 8;
    if (kind == UNKNOWN) return NULL;
    if (kind == LINE) return pass_line(at, end);
    if (kind == LINES2) {
        at = pass_line(at, end);
        return at ? pass_line(at, end) : NULL;
    }
    if (there < head) return NULL;
    uint64_t len = 0;
    for (size_t i = 0; i < head; i++) len |= (uint64_t)at[i] << (8 * i);
    return len <= there - head ? at + head + len : NULL;
}

/* Notes in `wanted`, which has `count` bits, what is got from the memo between at and end.
 * False if indices are given in another way than one after the other. */
static bool walk(const uint8_t *table, const uint8_t *at, const uint8_t *end, uint8_t *wanted,
                 size_t count) {
    while (at < end) {
        uint8_t op = *at++, kind = table[op];
        size_t index;
        switch (op) {
        case KIN_OP_SHORT_BINUNICODE:
            if (at == end || *at >= end - at) return true;
            at += 1 + *at;
            continue;
        case KIN_OP_BINGET:
            if (at == end) return true;
            index = *at;
            break;
        case KIN_OP_LONG_BINGET:
            if (end - at < 4) return true;
            index = (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
            break;
        case KIN_OP_STOP: return true;
        case KIN_OP_GET:
        case KIN_OP_PUT:
        case KIN_OP_BINPUT:
        case KIN_OP_LONG_BINPUT: return false;
        default:
            if (kind < SIZE1) {
                if (kind > end - at) return true;
                at += kind;
            } else {
                at = pass(kind, at, end);
                if (!at) return true;
            }
            continue;
        }
        if (index < count) wanted[index / 8] |= (uint8_t)(1 << index % 8);
        at += kind;
    }
    return true;
}

void kinx_look_ahead(kinx_loader *u) {
    u->looked = true;
    if (u->source || u->self || u->memo.far) return;
    /* Each of those that will be memoised takes two bytes, at the least. */
    size_t count = u->memo.count + (size_t)(u->end - u->at) / 2 + 1;
    uint8_t *wanted = PyMem_Calloc(count / 8 + 1, 1);
    if (wanted && walk(u->us->ahead, u->at, u->end, wanted, count)) {
        u->wanted = wanted;
        u->wanted_count = count;
    } else {
        PyMem_Free(wanted);
    }
}
