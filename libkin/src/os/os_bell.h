/* Doorbells, as the system has them, and waiting for many descriptors.
 *
 * The contract, like os.h; os_bell_linux.c keeps it for Linux.  All functions are
 * safe from any thread.  Descriptors made here are close-on-exec. */
#ifndef KIN_OS_BELL_H
#define KIN_OS_BELL_H

#include <stdbool.h>

#include "kin/base.h"

/* A bell has a name of these bytes, known to the whole machine. */
#define KIN__OS_BELL_NAME 32

/* A descriptor that is readable once the bell was rung, or -errno: -EADDRINUSE if the name
 * is another's. */
int kin__os_bell_new(const uint8_t name[KIN__OS_BELL_NAME]);
/* What a process rings with, or -errno. */
int kin__os_ringer_new(void);
/* Ring.  0: the bell is readable.  -ECONNREFUSED: there is none of this name.  -EAGAIN: the
 * bell or the ringer has too much to do; another ringer may tell.  Others: the ringer is bad. */
kin_err kin__os_bell_ring(int ringer, const uint8_t name[KIN__OS_BELL_NAME]);
/* Take the rings back that were there when this was called.  False: there was none. */
bool kin__os_bell_drain(int bell);

/* One of many descriptors. */
struct kin__os_reader {
    int fd;
    short internal;
    short ready; /* readable, at its end, or bad: not 0 */
};
/* Wait until one of them is readable: 0, -ETIMEDOUT, -EINTR, -ENOMEM, -EINVAL (more than this
 * process may have open). */
kin_err kin__os_readers_poll(struct kin__os_reader *readers, size_t count, kin_deadline deadline);

#endif
