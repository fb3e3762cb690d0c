/* Control groups of both versions, laid out in a folder. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "kin.h"
#include "os/os_groups.h"

static char folder[] = "/tmp/kin-groups-XXXXXX";
static char list[64], mount[64];
static const kin__os_groups groups = {list, mount};

static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file);
    fputs(text, file);
    fclose(file);
}

static void begin(const char *line) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK_EQ(system(command), 0);
    put("list", line);
}

static void quotas(void) {
    begin("0::/a/b\n");
    CHECK_EQ(kin__os_groups_processors(&groups), UINT64_MAX);
    put("mount/a/b/cpu.max", "max 100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), UINT64_MAX);
    put("mount/a/cpu.max", "150000 100000\n"); /* one and a half, above it */
    CHECK_EQ(kin__os_groups_processors(&groups), 2);
    put("mount/cpu.max", "50000 100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), 1);
    begin("0::/\n");
    put("mount/cpu.max", "400000 100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), 4);
    begin("0::/not/there\n");
    put("mount/cpu.max", "300000 100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), 3);
}

static void quotas_of_version_1(void) {
    begin("5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n");
    put("mount/cpuset/x/cpu.cfs_quota_us", "100000\n"); /* no such thing: not to be looked at */
    put("mount/cpuset/x/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), UINT64_MAX);
    put("mount/cpu/x/cpu.cfs_quota_us", "250000\n");
    put("mount/cpu/x/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(kin__os_groups_processors(&groups), 3);
    put("mount/cpu/x/cpu.cfs_quota_us", "-1\n");
    CHECK_EQ(kin__os_groups_processors(&groups), UINT64_MAX);
}

static void nonsense(void) {
    static const char *const lists[] = {"", "nonsense\n", ":::\n", "0:\n", "1:cpu\n"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        begin(lists[i]);
        put("mount/cpu.max", "1 0\n");
        put("mount/memory.max", "\n");
        CHECK_EQ(kin__os_groups_processors(&groups), UINT64_MAX);
        CHECK_EQ(kin__os_groups_memory(&groups), UINT64_MAX);
        CHECK_EQ(kin__os_groups_oom_kills(&groups), 0);
    }
}

static void memory(void) {
    begin("0::/a\n");
    put("mount/a/memory.max", "max\n");
    put("mount/memory.max", "1048576\n");
    CHECK_EQ(kin__os_groups_memory(&groups), 1048576);
    put("mount/a/memory.max", "4096\n");
    CHECK_EQ(kin__os_groups_memory(&groups), 4096);
    begin("3:memory:/m\n");
    put("mount/memory/m/memory.limit_in_bytes", "8192\n");
    CHECK_EQ(kin__os_groups_memory(&groups), 8192);
}

static void kills(void) {
    begin("0::/a\n");
    CHECK_EQ(kin__os_groups_oom_kills(&groups), 0);
    put("mount/memory.events", "low 0\nmax 9\noom 2\noom_kill 7\noom_group_kill 1\n");
    CHECK_EQ(kin__os_groups_oom_kills(&groups), 7);
    put("mount/a/memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n");
    CHECK_EQ(kin__os_groups_oom_kills(&groups), 3);
}

int main(void) {
    CHECK(mkdtemp(folder));
    snprintf(list, sizeof list, "%s/list", folder);
    snprintf(mount, sizeof mount, "%s/mount", folder);
    quotas();
    quotas_of_version_1();
    nonsense();
    memory();
    kills();
    begin("");
    CHECK(kin_processors() >= 1);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}
