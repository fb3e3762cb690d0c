/* The locker as the rest of the family room sees it. */
#ifndef KIN_FAMILY_LOCKER_H
#define KIN_FAMILY_LOCKER_H

#include "family_internal.h"
#include "kin/locker.h"

/* The founder's part: make the socket and note which one it is.  Its descriptor, or -errno. */
int kin__locker_found(kin_locker_shm *shm);
/* Is `fd` open on that socket? */
bool kin__locker_is(const kin_locker_shm *shm, int fd);
/* How many descriptors wait; those of dead objects that nobody could yet take out included. */
uint32_t kin__locker_count(const kin_locker_shm *shm);
/* Settle what a dead member left half-done, and take out what others could not. */
void kin__locker_tidy(kin_family *family);

/* The end of a descriptor's object: it is taken out of the locker. */
void kin__descriptor_end(kin_family *family, uint64_t off);

#endif
