/* Texts: see text.h.  What is read here may be anything; each function looks at no byte
 * beyond `len`, and takes time in proportion to it (a decimal number: to its square, which
 * is why KIN__DECIMAL_MAX is there). */
#include "text.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- UTF-8 ----------------------------------------------------------------------- */

static bool is_tail(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

/* Bytes of the code point that begins here, 0 if there is none. */
static size_t utf8_len_at(const uint8_t *at, size_t left) {
    uint8_t first = at[0];
    if (first < 0x80) return 1;
    if (first < 0xc2) return 0;
    if (first < 0xe0) return left >= 2 && is_tail(at[1]) ? 2 : 0;
    if (first < 0xf0) {
        if (left < 3 || !is_tail(at[1]) || !is_tail(at[2])) return 0;
        return first == 0xe0 && at[1] < 0xa0 ? 0 : 3;
    }
    if (first > 0xf4 || left < 4 || !is_tail(at[1]) || !is_tail(at[2]) || !is_tail(at[3])) return 0;
    if (first == 0xf0 && at[1] < 0x90) return 0;
    return first == 0xf4 && at[1] >= 0x90 ? 0 : 4;
}

bool kin__utf8_is_valid(const uint8_t *text, size_t len) {
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= 8 && (memcpy(&eight, text + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        size_t step = utf8_len_at(text + i, len - i);
        if (step == 0) return false;
        i += step;
    }
    return true;
}

bool kin__is_ascii(const uint8_t *text, size_t len) {
    uint8_t all = 0;
    for (size_t i = 0; i < len; i++) all |= text[i];
    return all < 0x80;
}

uint8_t *kin__utf8_put(uint8_t *at, uint32_t code) {
    if (code < 0x80) {
        *at++ = (uint8_t)code;
        return at;
    }
    if (code < 0x800) {
        *at++ = (uint8_t)(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        *at++ = (uint8_t)(0xe0 | code >> 12);
        *at++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    } else {
        *at++ = (uint8_t)(0xf0 | code >> 18);
        *at++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        *at++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    }
    *at++ = (uint8_t)(0x80 | (code & 0x3f));
    return at;
}

uint32_t kin__utf8_next(const uint8_t **at) {
    uint8_t first = *(*at)++;
    if (first < 0x80) return first;
    int tails = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t code = first & (0x3f >> tails);
    while (tails-- > 0) code = code << 6 | (*(*at)++ & 0x3f);
    return code;
}

/* -- Escapes ---------------------------------------------------------------------- */

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* `digits` hexadecimal ones; false if these are none. */
static bool hex_number(const uint8_t *text, size_t left, size_t digits, uint32_t *out) {
    if (left < digits) return false;
    uint32_t n = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0) return false;
        n = n << 4 | (uint32_t)digit;
    }
    *out = n;
    return true;
}

bool kin__raw_unicode(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len) {
    uint8_t *to = out;
    for (size_t i = 0; i < len;) {
        uint8_t c = text[i++];
        if (c != '\\' || i == len) {
            to = kin__utf8_put(to, c);
            continue;
        }
        uint8_t kind = text[i++];
        size_t digits = kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
        uint32_t code;
        if (digits == 0) {
            *to++ = '\\';
            to = kin__utf8_put(to, kind);
            continue;
        }
        if (!hex_number(text + i, len - i, digits, &code) || code > 0x10ffff) return false;
        to = kin__utf8_put(to, code);
        i += digits;
    }
    *out_len = (size_t)(to - out);
    return true;
}

/* The letter behind a backslash as one byte, or -1. */
static int simple_escape(uint8_t c) {
    static const char letters[] = "\\'\"abfnrtv", bytes[] = "\\'\"\a\b\f\n\r\t\v";
    const char *found = c ? strchr(letters, c) : NULL;
    return found ? (uint8_t)bytes[found - letters] : -1;
}

/* What a backslash began, at *i; -1 if it is broken or unknown. */
static int escape(const uint8_t *text, size_t len, size_t *i) {
    uint8_t c = text[(*i)++];
    uint32_t byte = 0;
    if (c == 'x') {
        if (!hex_number(text + *i, len - *i, 2, &byte)) return -1;
        *i += 2;
        return (int)byte;
    }
    if (c < '0' || c > '7') return simple_escape(c);
    byte = c - '0';
    for (int more = 2; more > 0 && *i < len && text[*i] >= '0' && text[*i] <= '7'; more--) {
        byte = byte * 8 + (text[(*i)++] - '0');
    }
    return (int)(byte & 0xff);
}

bool kin__quoted(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len) {
    if (len < 2 || text[0] != text[len - 1] || (text[0] != '\'' && text[0] != '"')) return false;
    uint8_t *to = out;
    len--;
    for (size_t i = 1; i < len;) {
        int byte = text[i++];
        if (byte == text[0]) return false;
        if (byte == '\\') byte = i < len ? escape(text, len, &i) : -1;
        if (byte < 0) return false;
        *to++ = (uint8_t)byte;
    }
    *out_len = (size_t)(to - out);
    return true;
}

/* -- Numbers ---------------------------------------------------------------------- */

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* n = n * 10^digits + add, in limbs of 32 bits; how many there are now. */
static size_t multiply_add(uint8_t *limbs, size_t count, uint32_t factor, uint32_t add) {
    uint64_t carry = add;
    for (size_t i = 0; i < count; i++) {
        uint32_t limb;
        memcpy(&limb, limbs + 4 * i, 4);
        carry += (uint64_t)limb * factor;
        limb = (uint32_t)carry;
        memcpy(limbs + 4 * i, &limb, 4);
        carry >>= 32;
    }
    if (carry == 0) return count;
    uint32_t limb = (uint32_t)carry;
    memcpy(limbs + 4 * count, &limb, 4);
    return count + 1;
}

/* Limbs in the machine's order become bytes, little-endian, negated or not. */
static void to_bytes(uint8_t *limbs, size_t count, bool negative) {
    uint64_t carry = negative;
    for (size_t i = 0; i < count; i++) {
        uint32_t limb;
        memcpy(&limb, limbs + 4 * i, 4);
        carry += negative ? (uint32_t)~limb : limb;
        for (int k = 0; k < 4; k++) limbs[4 * i + k] = (uint8_t)(carry >> (8 * k));
        carry >>= 32;
    }
}

bool kin__decimal(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len) {
    bool negative = len > 0 && text[0] == '-';
    size_t i = len > 0 && (text[0] == '-' || text[0] == '+'), count = 0;
    if (i == len) return false;
    while (i < len) {
        uint32_t factor = 1, part = 0;
        for (; i < len && factor < 1000000000; i++, factor *= 10) {
            if (!is_digit(text[i])) return false;
            part = part * 10 + (text[i] - '0');
        }
        count = multiply_add(out, count, factor, part);
    }
    /* One more, which is all sign. */
    memset(out + 4 * count, 0, 4);
    to_bytes(out, count + 1, negative);
    *out_len = kin__int_trim(out, 4 * (count + 1));
    return true;
}

size_t kin__int_trim(const uint8_t *bytes, size_t len) {
    if (len == 0) return 0;
    uint8_t sign = bytes[len - 1] & 0x80 ? 0xff : 0;
    while (len > 1 && bytes[len - 1] == sign && (bytes[len - 2] & 0x80) == (sign & 0x80)) len--;
    return len == 1 && bytes[0] == 0 ? 0 : len;
}

int64_t kin__int_load(const uint8_t *bytes, size_t len) {
    uint64_t n = len > 0 && bytes[len - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = len; i-- > 0;) n = n << 8 | bytes[i];
    return (int64_t)n;
}

/* digits [. digits] [e [sign] digits], at least one digit in front of the e. */
static bool is_float(const char *text) {
    const char *at = text + (*text == '-' || *text == '+');
    size_t digits = 0;
    for (bool point = false;; at++) {
        if (is_digit((uint8_t)*at)) digits++;
        else if (*at == '.' && !point) point = true;
        else break;
    }
    if (digits == 0) return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        if (!is_digit((uint8_t)*at)) return false;
        while (is_digit((uint8_t)*at)) at++;
    }
    return *at == 0;
}

/* strtod() wants the point that the locale has. */
static double to_double(char *text, size_t room) {
    char *point = strchr(text, '.');
    const char *local = localeconv()->decimal_point;
    size_t len = strlen(local);
    if (point && strcmp(local, ".") != 0 && strlen(text) + len < room) {
        memmove(point + len, point + 1, strlen(point + 1) + 1);
        while (*local) *point++ = *local++;
    }
    return strtod(text, NULL);
}

bool kin__float(const uint8_t *text, size_t len, double *out) {
    static const struct {
        char text[5];
        double value;
    } names[] = {{"inf", INFINITY}, {"+inf", INFINITY}, {"-inf", -INFINITY},
                 {"nan", NAN},      {"-nan", NAN},      {"+nan", NAN}};
    char buffer[400]; /* repr() writes 24; a 1 with 308 zeros is a number too */
    if (len == 0 || len + 8 > sizeof buffer) return false;
    memcpy(buffer, text, len);
    buffer[len] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(buffer, names[i].text) == 0) {
            *out = names[i].value;
            return true;
        }
    }
    if (strlen(buffer) != len || !is_float(buffer)) return false;
    *out = to_double(buffer, sizeof buffer);
    return true;
}
