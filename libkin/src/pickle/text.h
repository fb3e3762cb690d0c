/* The texts in pickles: UTF-8, and what protocols 0 to 2 spell out in ASCII.
 *
 * None of it depends on the locale. */
#ifndef KIN_PICKLE_TEXT_H
#define KIN_PICKLE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kin/base.h>

/* Are these bytes UTF-8?  Lone surrogates are allowed, as Python's strings may have them. */
bool kin__utf8_is_valid(const uint8_t *text, size_t len);
/* Are all of them below 128? */
bool kin__is_ascii(const uint8_t *text, size_t len);
/* A code point of up to 0x10ffff as UTF-8, at most 4 bytes: where the next goes. */
uint8_t *kin__utf8_put(uint8_t *at, uint32_t code);

/* The code point of valid UTF-8 at *at, which is moved behind it. */
uint32_t kin__utf8_next(const uint8_t **at);

/* What "raw-unicode-escape" makes of the text, as UTF-8.  out: room for 3 bytes for each of `len`.
 * False: an escape is broken. */
bool kin__raw_unicode(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len);
/* A string of Python 2 in quotes, as its repr() writes it; out: room for `len` bytes. */
bool kin__quoted(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len);

/* A decimal number of any size, in two's complement, little-endian.  out: room for
 * KIN__DECIMAL_ROOM(len) bytes.  False: it is none. */
#define KIN__DECIMAL_ROOM(len) (((len) / 9 + 2) * 4)
bool kin__decimal(const uint8_t *text, size_t len, uint8_t *out, size_t *out_len);
/* More digits than this take long, and Python would not read them either. */
#define KIN__DECIMAL_MAX 4300
/* What repr() writes for a float. */
bool kin__float(const uint8_t *text, size_t len, double *out);

/* How many of these bytes of two's complement will do: 0 for zero. */
size_t kin__int_trim(const uint8_t *bytes, size_t len);
/* At most 8 bytes of two's complement. */
int64_t kin__int_load(const uint8_t *bytes, size_t len);

#endif
