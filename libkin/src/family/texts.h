/* Short texts that members leave for each other: where a lock was taken, say.
 *
 * A text is named by a number that fits into a word of any object, and stays for as long as the
 * family does.  Equal texts share a number.  There is room for KIN_TEXTS of them; who comes when it
 * is full gets 0, the text that says nothing. */
#ifndef KIN_FAMILY_TEXTS_H
#define KIN_FAMILY_TEXTS_H

#include "family_internal.h"

#define KIN_TEXTS 2048
#define KIN_TEXT_MAX 112 /* bytes; of a longer one the end is kept */

/* The number of this text, or 0. */
uint32_t kin__text_number(kin_family *family, const char *text, size_t len);
/* Copy the text with this number, and a zero byte: how long it is, 0 if there is none. */
size_t kin__text_read(kin_family *family, uint32_t number, char out[KIN_TEXT_MAX + 1]);

#endif
