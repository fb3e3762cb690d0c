/* Messages that mention objects of the arena and travel as bytes through a pipe or a socket. */
#ifndef KINX_TRANSIT_H
#define KINX_TRANSIT_H

#include "message.h"

/* What holds the objects meanwhile, and the end of the pickle that lets them go. */
typedef struct kinx_passage {
    kin_transit transit; /* a handle, open until the end */
    uint64_t number;     /* 0: nothing is held */
    uint8_t tail[96];
    size_t tail_len; /* comes in place of the pickle's STOP */
} kinx_passage;

/* Have what is mentioned held: by `transit`, a _kin.Transit, or by the family's own if that is
 * NULL.  Without mentions: nothing.  Raises; then there is nothing to finish. */
int kinx_passage_begin(kinx_state *st, kinx_passage *passage, const kinx_mentions *mentions,
                       PyObject *transit);
/* sent: it is on its way; else nobody will ever load it, and the holds are given back. */
void kinx_passage_end(kinx_passage *passage, bool sent);

/* A message that came, and that could not be loaded: give back what is held for it. */
void kinx_passage_drop(const uint8_t *data, size_t len);

int kinx_transit_exec(PyObject *module);

#endif
