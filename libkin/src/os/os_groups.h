/* What the system lets this process use, by the control groups that it is in.
 *
 * Another system says "no limit" and "not known".  All functions are safe from any thread. */
#ifndef KIN_OS_GROUPS_H
#define KIN_OS_GROUPS_H

#include <stdint.h>

/* Where the groups are told, and where they are: this process's, or a test's. */
typedef struct kin__os_groups {
    const char *list, *mount;
} kin__os_groups;
extern const kin__os_groups kin__os_groups_here;

/* The smallest limit of memory on the way up, in bytes; UINT64_MAX: none. */
uint64_t kin__os_groups_memory(const kin__os_groups *groups);
/* How many processes of the group were killed for want of memory, so far; 0 also: not known. */
uint64_t kin__os_groups_oom_kills(const kin__os_groups *groups);
/* The smallest quota of processors on the way up, a part counts as a whole one; UINT64_MAX: none. */
uint64_t kin__os_groups_processors(const kin__os_groups *groups);

/* How many processors this process may use, by that and by its affinity: at least 1. */
uint64_t kin__os_processors(void);

#endif
