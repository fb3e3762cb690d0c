/* os_groups.h for Linux: control groups of both versions.
 *
 * Sources: the kernel's documentation, Documentation/admin-guide/cgroup-v2.rst (memory.max, memory.events,
 * cpu.max), cgroup-v1/memory.rst (memory.limit_in_bytes), scheduler/sched-bwc.rst (cpu.cfs_*_us). */
#define _GNU_SOURCE
#include "os_groups.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os.h"

const kin__os_groups kin__os_groups_here = {"/proc/self/cgroup", "/sys/fs/cgroup"};

/* The beginning of a file of a group, as text; false: there is no such file. */
static bool read_file(const char *folder, const char *name, char *text, size_t room) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t got = read(fd, text, room - 1);
    close(fd);
    if (got < 0) return false;
    text[got] = 0;
    return true;
}

/* The number that a text begins with, or UINT64_MAX ("max", "-1"). */
static uint64_t number_in(const char *text) {
    return text[0] < '0' || text[0] > '9' ? UINT64_MAX : strtoull(text, NULL, 10);
}

static uint64_t read_number(const char *folder, const char *name) {
    char text[64];
    return read_file(folder, name, text, sizeof text) ? number_in(text) : UINT64_MAX;
}

/* -- The way up -------------------------------------------------------------------------- */

/* Looks at one group; false: the others need not be looked at. */
typedef bool visitor(const char *folder, bool is_v2, void *out);

static bool is_named(const char *list, const char *controller) {
    size_t len = strlen(controller);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, controller, len) == 0 && (at[len] == ',' || at[len] == 0)) return true;
    }
    return false;
}

/* A group and all above it.  In a container the path may be the host's, and not be there. */
static bool go_up(const char *root, char *group, bool is_v2, visitor *visit, void *out) {
    char folder[PATH_MAX + 64];
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", root, group);
        if (!visit(folder, is_v2, out)) return false;
        char *slash = strrchr(group, '/');
        if (!slash || group[0] == 0) return true;
        *slash = 0;
    }
}

/* Those of this process's groups that have the controller.  A line reads "0::/a/b" (v2) or
 * "7:cpu,cpuacct:/a/b" (v1). */
static void each_group(const kin__os_groups *groups, const char *controller, visitor *visit,
                       void *out) {
    FILE *file = fopen(groups->list, "re");
    if (!file) return;
    char line[PATH_MAX], root[PATH_MAX];
    bool goes_on = true;
    while (goes_on && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(++controllers, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        bool is_v2 = controllers[0] == 0;
        if (!is_v2 && !is_named(controllers, controller)) continue;
        snprintf(root, sizeof root, "%s%s%s", groups->mount, is_v2 ? "" : "/",
                 is_v2 ? "" : controller);
        goes_on = go_up(root, group, is_v2, visit, out);
    }
    fclose(file);
}

/* -- Memory -------------------------------------------------------------------------------- */

static bool least_memory(const char *folder, bool is_v2, void *out) {
    uint64_t *least = out;
    uint64_t here = read_number(folder, is_v2 ? "memory.max" : "memory.limit_in_bytes");
    if (here < *least) *least = here;
    return true;
}

uint64_t kin__os_groups_memory(const kin__os_groups *groups) {
    uint64_t least = UINT64_MAX;
    each_group(groups, "memory", least_memory, &least);
    return least;
}

/* What a group counts, it counts of those below, too: the first that counts is the process's own. */
static bool count_kills(const char *folder, bool is_v2, void *out) {
    char text[512];
    if (!is_v2 || !read_file(folder, "memory.events", text, sizeof text)) return true;
    const char *line = strstr(text, "oom_kill ");
    if (!line) return true;
    *(uint64_t *)out = strtoull(line + strlen("oom_kill "), NULL, 10);
    return false;
}

uint64_t kin__os_groups_oom_kills(const kin__os_groups *groups) {
    uint64_t kills = 0;
    each_group(groups, "memory", count_kills, &kills);
    return kills;
}

/* -- Processors ------------------------------------------------------------------------------ */

static bool least_quota(const char *folder, bool is_v2, void *out) {
    uint64_t quota = UINT64_MAX, period = UINT64_MAX, *least = out;
    char text[64];
    if (!is_v2) {
        quota = read_number(folder, "cpu.cfs_quota_us");
        period = read_number(folder, "cpu.cfs_period_us");
    } else if (read_file(folder, "cpu.max", text, sizeof text)) {
        const char *second = strchr(text, ' ');
        quota = number_in(text);
        if (second) period = number_in(second + 1);
    }
    if (quota == UINT64_MAX || period == UINT64_MAX || period == 0) return true;
    uint64_t here = quota / period + (quota % period != 0);
    if (here < *least) *least = here;
    return true;
}

uint64_t kin__os_groups_processors(const kin__os_groups *groups) {
    uint64_t least = UINT64_MAX;
    each_group(groups, "cpu", least_quota, &least);
    return least;
}

/* More processors than the set has room for are not known: then all that there are count. */
static uint64_t affinity(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return (uint64_t)CPU_COUNT(&set);
    long all = sysconf(_SC_NPROCESSORS_ONLN);
    return all > 0 ? (uint64_t)all : 1;
}

uint64_t kin__os_processors(void) {
    uint64_t count = affinity(), quota = kin__os_groups_processors(&kin__os_groups_here);
    if (quota < count) count = quota;
    return count ? count : 1;
}
