/* The system, as far as the locker goes: a socket connected to itself, in which descriptors wait.
 *
 * The contract, like os.h; os_locker_linux.c keeps it for Linux.  What is put in comes out in the
 * same order, in parcels: a label, and up to KIN__OS_LOCKER_FDS descriptors, held by the kernel.
 * Nobody but who has the socket's descriptor can put anything in.
 *
 * Safe from any thread, but not at once with another call on the same locker, in whatever process. */
#ifndef KIN_OS_LOCKER_H
#define KIN_OS_LOCKER_H

#include <stdbool.h>
#include <stddef.h>

#include "kin/base.h"

/* As many as cost the kernel no more memory than one, with labels of 16 bytes for each. */
#define KIN__OS_LOCKER_FDS 12

/* Its descriptor, close-on-exec, or -errno.  *room: how much memory it may take (see _used). */
int kin__os_locker_new(uint64_t *room);

/* Put a parcel in.  -EAGAIN: it is full.  -ETOOMANYREFS: too many descriptors of this user are
 * under way.  -EBADF: one of the descriptors is not open. */
kin_err kin__os_locker_put(int locker, const void *label, size_t len, const int *fds, size_t count);

typedef struct kin__os_parcel {
    void *label;
    size_t room;   /* for the label */
    size_t len;    /* of the label */
    int *fds;      /* new descriptors, close-on-exec, in the order in which they were put in */
    size_t wanted; /* how many of them; 0: fds is not looked at */
    size_t count;  /* how many there are; fewer if this process may not open more */
} kin__os_parcel;

/* Look at the parcel that has labels of `off` bytes before it; it stays.  -EAGAIN: there is none. */
kin_err kin__os_locker_look(int locker, uint64_t off, kin__os_parcel *parcel);
/* Take the first parcel out and close its descriptors; the label's length in *len. */
kin_err kin__os_locker_discard(int locker, size_t *len);
/* How much memory it takes now. */
uint64_t kin__os_locker_used(int locker);
/* Why this process can't have one more descriptor: -EMFILE, -ENFILE; 0 if it can. */
kin_err kin__os_descriptor_limit_met(int fd);

#endif
