/* Deadlines for calls that want the time left. */
#ifndef KIN_OS_DEADLINE_LINUX_H
#define KIN_OS_DEADLINE_LINUX_H

#include <time.h>

#include "os/os.h"

/* NULL for ever. */
static inline const struct timespec *time_left(kin_deadline deadline, struct timespec *space) {
    if (deadline == KIN_FOREVER) return NULL;
    int64_t left = deadline == KIN_NOW ? 0 : deadline - kin__os_clock();
    if (left < 0) left = 0;
    space->tv_sec = left / 1000000000;
    space->tv_nsec = left % 1000000000;
    return space;
}

#endif
