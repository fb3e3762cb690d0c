/* Doorbells: descriptors that are readable when an object of the arena is ready. */
#include "kin/wait.h"

kin_err kin_doorbell_open(kin_family *family, kin_doorbell **out) {
    (void)family, (void)out;
    return -ENOSYS;
}
