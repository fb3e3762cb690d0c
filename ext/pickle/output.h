/* Where the bytes of a pickle go: into bytes, into a file, into a message.
 *
 * The first KINX_SCRATCH bytes go into a buffer that the module keeps for the next
 * pickling, all of them into a bytes object when there are more.  A small pickle is
 * copied once more in the end, which costs less than making room anew; a large
 * one never. */
#ifndef KINX_OUTPUT_H
#define KINX_OUTPUT_H

#include "pickler.h"

/* A large payload that was not copied: it belongs in the pickle in front of the byte at
 * `off` of what is in the buffer. */
typedef struct kinx_piece {
    size_t off;
    PyObject *owner; /* strong */
    const void *data;
    size_t len;
} kinx_piece;

typedef struct kinx_output {
    kin_writer *writer;
    struct kinx_pickler_state *ps;
    uint8_t *scratch; /* the module's, as long as this has it */
    PyObject *bytes;  /* the buffer, once the scratch is too small */
    PyObject *write;  /* borrowed: the file's, or NULL */
    kinx_piece *pieces;
    size_t piece_count, piece_room;
} kinx_output;

/* Into memory: w is ready for kin_writer_begin.  write: NULL; or the write method of a file,
 * which gets frame by frame.  in_pieces: large payloads stay where they are.  Raises. */
int kinx_output_init(kinx_output *out, struct kinx_pickler_state *ps, kinx_pickler *p,
                     PyObject *write, bool in_pieces);
/* Forget what has been written. */
void kinx_output_rewind(kinx_output *out);
void kinx_output_fini(kinx_output *out);
/* All that has been written, and no more can be: a new reference to bytes. */
PyObject *kinx_output_take(kinx_output *out);

#endif
