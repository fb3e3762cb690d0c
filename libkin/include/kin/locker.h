/* The locker: where descriptors wait while messages that mention them are under way.
 *
 * A descriptor is a number that means something in one process only.  A duplicate of what it is
 * open on lies in the family's one socket, in the kernel's hands, for as long as anybody holds
 * the object of the arena that stands for it: this process, another, or a message.  The one who
 * put it there may close its own descriptor, or die, at once.  docs/locker.md has the protocol. */
#ifndef KIN_LOCKER_H
#define KIN_LOCKER_H

#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A descriptor in the locker; its ref can be sent to any member. */
typedef struct kin_descriptor {
    kin_handle handle;
} kin_descriptor;

/* Put a duplicate of `fd`, which stays the caller's, into the locker.
 * Errors: -EBADF; -EMFILE, -ENFILE; -ETOOMANYREFS (as many are under way as the system lets this
 * user have: RLIMIT_NOFILE); -ENOBUFS (the locker's socket is full); KIN_EARENAFULL, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_descriptor_create(kin_family *family, int fd,
                                                    kin_descriptor *out);
KIN_API KIN_NODISCARD kin_err kin_descriptor_open(kin_family *family, const kin_ref *ref,
                                                  kin_descriptor *out);
/* The last handle, or message, that goes takes it out of the locker. */
KIN_API void kin_descriptor_close(kin_descriptor *descriptor);
/* Have a new descriptor, close-on-exec and the caller's, open on the same thing.  It stays in the
 * locker: any holder may do so, any number of times.
 * Errors: -EMFILE (this process may open no more: RLIMIT_NOFILE), -ENFILE, KIN_ESTALE. */
KIN_API KIN_NODISCARD kin_err kin_descriptor_fetch(const kin_descriptor *descriptor, int *fd);
/* How often that was done, by anyone. */
KIN_API uint64_t kin_descriptor_fetched(const kin_descriptor *descriptor);

#ifdef __cplusplus
}
#endif

#endif
