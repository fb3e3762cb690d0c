/* From kin_err to exceptions: the one place that knows which becomes which. */
#ifndef KINX_ERRORS_H
#define KINX_ERRORS_H

#include "state.h"

/* Raise what `err` stands for.  thing: what was being used, as in "this Queue";
 * NULL for "the object".  Always returns NULL.
 *
 *   KIN_EARENAFULL, KIN_ETOOLARGE, KIN_EARENAMAP, -ENOMEM   MemoryError, with the figures
 *   KIN_ESTALE                              StaleReference (a LookupError and RuntimeError)
 *   KIN_ENOFAMILY, KIN_EFOREIGN, KIN_EINFAMILY, KIN_ELEFT,
 *   KIN_EMEMBERS, KIN_EBADARENA             RuntimeError
 *   KIN_EOVERRELEASE, KIN_EKIND, KIN_ECLOSED, -EINVAL       ValueError
 *   KIN_ENOTOWNER                           AssertionError, as multiprocessing has it
 *   -EINTR                                  what the signal's handler raised
 *   any other -errno                        OSError */
void *kinx_raise(kinx_state *st, kin_err err, const char *thing);

/* Raise RuntimeError for a ref of the family `id`, of which this process is no
 * member; it says what was met, why, and the remedy.  Always returns NULL. */
void *kinx_raise_foreign(const char *thing, const uint8_t *id);

#endif
