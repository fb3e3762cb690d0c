/* The locker: descriptors that wait in the family's socket. */
#include "locker.h"

void kin__descriptor_end(kin_family *family, uint64_t off) {
    (void)family, (void)off;
}
