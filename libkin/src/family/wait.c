/* Waiting for objects and descriptors together. */
#include "kin/wait.h"

kin_err kin_wait(kin_family *family, kin_wait_item *items, size_t count, kin_deadline deadline) {
    (void)family, (void)items, (void)count, (void)deadline;
    return -ENOSYS;
}
