/* Where a program takes a lock. */
#ifndef KINX_PLACE_H
#define KINX_PLACE_H

#include "state.h"

/* The line of Python that runs now, as a number for kin_lock_acquire_at; 0 if there is none, or no
 * room to note it.  Never raises.  A few nanoseconds, but the first time at each line. */
uint32_t kinx_place(kinx_state *st, kin_family *family);

struct kinx_places;
int kinx_places_visit(struct kinx_places *places, visitproc visit, void *arg);
void kinx_places_clear(kinx_state *st);

#endif
