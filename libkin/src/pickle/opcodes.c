/* The table of opcodes by byte, and the one place where an instruction's length is
 * worked out.
 *
 * Every length is compared with what is left before it is added to anything, so
 * that nothing overflows. */
#include <kin/pickle.h>

#define OPCODE_INFO(label, byte, first, kind) [byte] = {#label, first, KIN_ARG_##kind},
const kin_opcode_info kin_opcodes[256] = {KIN_PICKLE_OPCODES(OPCODE_INFO)};
#undef OPCODE_INFO

/* Bytes of a number, or of the length in front of a payload. */
static const uint8_t arg_sizes[] = {
    [KIN_ARG_U1] = 1,     [KIN_ARG_U2] = 2,     [KIN_ARG_U4] = 4,      [KIN_ARG_I4] = 4,
    [KIN_ARG_U8] = 8,     [KIN_ARG_F8] = 8,     [KIN_ARG_BYTES1] = 1,  [KIN_ARG_BYTES4] = 4,
    [KIN_ARG_BYTES8] = 8, [KIN_ARG_LINES2] = 0, [KIN_ARG_SBYTES4] = 4,
};

static kin_err step_number(size_t len, size_t size, kin_step *step) {
    if (len - step->arg < size) return KIN_EPICKLESHORT;
    step->arg_len = size;
    step->next = step->arg + size;
    return 0;
}

static uint64_t load_length(const uint8_t *at, size_t size) {
    if (size == 1) return *at;
    return size == 4 ? kin_load4(at) : kin_load8(at);
}

static kin_err step_payload(const uint8_t *pickle, size_t len, size_t size, bool is_signed,
                            kin_step *step) {
    if (len - step->arg < size) return KIN_EPICKLESHORT;
    uint64_t payload = load_length(pickle + step->arg, size);
    if (is_signed && payload > INT32_MAX) return KIN_EPICKLE;
    step->arg += size;
    if (payload > len - step->arg) return KIN_EPICKLESHORT;
    step->arg_len = (size_t)payload;
    step->next = step->arg + step->arg_len;
    return 0;
}

static kin_err step_lines(const uint8_t *pickle, size_t len, int count, kin_step *step) {
    size_t end = step->arg;
    while (count-- > 0) {
        const uint8_t *newline = end < len ? memchr(pickle + end, '\n', len - end) : NULL;
        if (!newline) return KIN_EPICKLESHORT;
        end = (size_t)(newline - pickle) + 1;
    }
    step->arg_len = end - 1 - step->arg;
    step->next = end;
    return 0;
}

static kin_err step_arg(const uint8_t *pickle, size_t len, kin_pickle_arg kind, kin_step *step) {
    size_t size = arg_sizes[kind];
    switch (kind) {
    case KIN_ARG_NONE: return 0;
    case KIN_ARG_BYTES1:
    case KIN_ARG_BYTES4:
    case KIN_ARG_BYTES8: return step_payload(pickle, len, size, false, step);
    case KIN_ARG_SBYTES4: return step_payload(pickle, len, size, true, step);
    case KIN_ARG_LINE: return step_lines(pickle, len, 1, step);
    case KIN_ARG_LINES2: return step_lines(pickle, len, 2, step);
    default: return step_number(len, size, step);
    }
}

kin_err kin_pickle_step(const uint8_t *pickle, size_t len, size_t off, kin_step *out) {
    if (off >= len) return KIN_EPICKLESHORT;
    const kin_opcode_info *info = &kin_opcodes[pickle[off]];
    if (!info->name) return KIN_EPICKLE;
    kin_step step = {.opcode = pickle[off], .arg = off + 1, .next = off + 1};
    kin_err err = step_arg(pickle, len, (kin_pickle_arg)info->arg, &step);
    if (err == 0) *out = step;
    return err;
}
