/* Starting by exec and by fork, waiting, signalling.
 * The program that is executed is this one, with a word that says what to do. */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "process_help.h"

static char self[] = "/proc/self/exe";

static kin_err spawn_keeping(const char *word, const char *argument, const int *keep, size_t count,
                             kin_process *out) {
    char *argv[] = {self, (char *)word, (char *)argument, NULL};
    kin_spawn what = {.path = self, .argv = argv, .keep_fds = keep, .keep_count = count};
    return kin_process_spawn(&what, out);
}

static kin_process spawned(const char *word, const char *argument) {
    kin_process process;
    CHECK_EQ(spawn_keeping(word, argument, NULL, 0, &process), 0);
    return process;
}

/* What a spawned child says into a pipe that it was left. */
static char *said_by(const char *word, const int *more, size_t more_count) {
    int ends[2], keep[8];
    char number[16];
    kin_process process;
    make_pipe(ends);
    if (more_count) memcpy(keep, more, more_count * sizeof *keep);
    keep[more_count] = ends[1];
    snprintf(number, sizeof number, "%d", ends[1]);
    CHECK_EQ(spawn_keeping(word, number, keep, more_count + 1, &process), 0);
    close(ends[1]);
    char *text = hear_all(ends[0]);
    close(ends[0]);
    CHECK_EQ(ended_with(&process), 0);
    return text;
}

/* -- The words, in the child ------------------------------------------------------- */

static int run_word(int argc, char **argv) {
    const char *word = argv[1];
    int number = argc > 2 ? atoi(argv[2]) : 0;
    if (strcmp(word, "exit") == 0) return number;
    if (strcmp(word, "signal") == 0) raise(number);
    if (strcmp(word, "pause") == 0) pause_for_ever();
    if (strcmp(word, "fds") == 0) say(number, open_fds(getpid()));
    if (strcmp(word, "env") == 0) say(number, getenv("KIN_TEST") ? getenv("KIN_TEST") : "-");
    if (strcmp(word, "signals") == 0) {
        char line[256];
        FILE *status = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, status)) {
            if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0) {
                say(number, line);
            }
        }
        fclose(status);
    }
    return 0;
}

/* -- Exec ---------------------------------------------------------------------------- */

static kin_err spawn_path(const char *path) {
    char *argv[] = {self, NULL};
    kin_spawn what = {.path = path, .argv = argv};
    kin_process process = {.pid = -7};
    kin_err err = kin_process_spawn(&what, &process);
    if (err) CHECK_EQ(process.pid, -7);
    return err;
}

static void exec_says_why_it_failed(void) {
    char path[] = "/tmp/kin-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    say(fd, "no program\n");
    CHECK_EQ(fchmod(fd, 0600), 0);
    CHECK_EQ(spawn_path(path), -EACCES);
    CHECK_EQ(fchmod(fd, 0700), 0);
    close(fd);
    CHECK_EQ(spawn_path(path), -ENOEXEC);
    unlink(path);
    CHECK_EQ(spawn_path(path), -ENOENT);
    CHECK_EQ(spawn_path("/"), -EACCES);
    CHECK_EQ(spawn_path("/dev/null/x"), -ENOTDIR);

    int missing = 700;
    kin_process process;
    CHECK_EQ(spawn_keeping("exit", "0", &missing, 1, &process), -EBADF);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* no child is left of any of these */
    CHECK_EQ(errno, ECHILD);
}

static void exec_keeps_what_it_is_told(void) {
    char wanted[128];
    int inheritable = fcntl(STDERR_FILENO, F_DUPFD, 40);
    int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 60);
    int kept_too = fcntl(STDERR_FILENO, F_DUPFD, 61);
    int last = fcntl(STDERR_FILENO, F_DUPFD, 90);
    int keep[] = {kept_too, kept, 2, kept};

    /* the pipe's write end is the lowest free number but one */
    int ends[2];
    make_pipe(ends);
    snprintf(wanted, sizeof wanted, "0 1 2 %d %d %d", ends[1], kept, kept_too);
    close(ends[0]);
    close(ends[1]);
    CHECK_EQ(strcmp(said_by("fds", keep, 4), wanted), 0);
    CHECK_EQ(fcntl(kept, F_GETFD), FD_CLOEXEC); /* unmarked for the child alone */

    close(inheritable);
    close(kept);
    close(kept_too);
    close(last);
}

static void exec_sets_signals(void) {
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGTERM, (void (*)(int))(void *)pause_for_ever);
    const char *text = said_by("signals", NULL, 0);
    unsigned long long mask = strtoull(strstr(text, "SigBlk:") + 7, NULL, 16);
    unsigned long long ignored = strtoull(strstr(text, "SigIgn:") + 7, NULL, 16);
    CHECK_EQ(mask, 1ull << (SIGUSR2 - 1));
    CHECK(ignored & 1ull << (SIGUSR1 - 1));
    CHECK(!(ignored & 1ull << (SIGTERM - 1)));
    signal(SIGUSR1, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void exec_gives_environment(void) {
    setenv("KIN_TEST", "own", 1);
    CHECK_EQ(strcmp(said_by("env", NULL, 0), "own"), 0);

    int ends[2];
    char number[16];
    make_pipe(ends);
    snprintf(number, sizeof number, "%d", ends[1]);
    char *argv[] = {self, (char *)"env", number, NULL}, given[] = "KIN_TEST=given";
    char *env[] = {given, NULL};
    kin_spawn what = {self, argv, env, &ends[1], 1};
    kin_process process;
    CHECK_EQ(kin_process_spawn(&what, &process), 0);
    close(ends[1]);
    CHECK_EQ(strcmp(hear_all(ends[0]), "given"), 0);
    close(ends[0]);
    CHECK_EQ(ended_with(&process), 0);
}

/* Threads that start children, each with a pipe of its own, and one that opens and
 * closes descriptors that are not marked: none gets into a child of another. */
static _Atomic int starters;

static void *start_some(void *unused) {
    for (int i = 0; i < 20; i++) {
        char wanted[32];
        int ends[2];
        char number[16];
        kin_process process;
        make_pipe(ends);
        snprintf(number, sizeof number, "%d", ends[1]);
        snprintf(wanted, sizeof wanted, "0 1 2 %d", ends[1]);
        CHECK_EQ(spawn_keeping("fds", number, &ends[1], 1, &process), 0);
        close(ends[1]);
        CHECK_EQ(strcmp(hear_all(ends[0]), wanted), 0);
        close(ends[0]);
        CHECK_EQ(ended_with(&process), 0);
    }
    starters--;
    return NULL;
}

static void *open_and_close(void *unused) {
    while (starters > 0) {
        int fd = fcntl(STDERR_FILENO, F_DUPFD, 3);
        CHECK(fd >= 0);
        close(fd);
    }
    return NULL;
}

static void exec_in_many_threads(void) {
    pthread_t threads[5];
    int before = count_fds(getpid());
    starters = 4;
    CHECK_EQ(pthread_create(&threads[4], NULL, open_and_close, NULL), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, start_some, NULL), 0);
    }
    for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
    CHECK_EQ(count_fds(getpid()), before);
}

/* -- Wait and signal -------------------------------------------------------------------- */

static void wait_gives_exit_codes(void) {
    kin_process process = spawned("exit", "0");
    CHECK_EQ(ended_with(&process), 0);
    process = spawned("exit", "7");
    CHECK_EQ(ended_with(&process), 7);
    process = spawned("exit", "255");
    CHECK_EQ(ended_with(&process), 255);
    process = spawned("signal", "9");
    CHECK_EQ(ended_with(&process), -9);
    process = spawned("signal", "15");
    CHECK_EQ(ended_with(&process), -15);
}

static void wait_keeps_to_its_deadline(void) {
    int status = -1000;
    kin_process process = spawned("pause", "");
    CHECK_EQ(kin_process_wait(&process, KIN_NOW, &status), -ETIMEDOUT);
    CHECK_EQ(kin_process_wait(&process, kin_deadline_after(5 * MS), &status), -ETIMEDOUT);
    CHECK_EQ(status, -1000);
    CHECK_EQ(kin_process_signal(&process, 0), 0);
    CHECK_EQ(kin_process_signal(&process, SIGTERM), 0);
    CHECK_EQ(kin_process_wait(&process, KIN_FOREVER, &status), 0);
    CHECK_EQ(status, -SIGTERM);
    status = 0;
    CHECK_EQ(kin_process_wait(&process, KIN_NOW, &status), 0);
    CHECK_EQ(status, -SIGTERM);
    CHECK_EQ(kin_process_signal(&process, SIGTERM), -ESRCH);
    kin_process_close(&process);
}

static void on_signal(int signo) {}

static int pester(void *parent) {
    struct timespec pause = {0, 1 * MS};
    while (kill(*(int *)parent, SIGUSR1) == 0) nanosleep(&pause, NULL);
    return 0;
}

static void wait_is_interrupted(void) {
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigaction(SIGUSR1, &action, &before);
    int own = getpid(), status;
    kin_process process;
    CHECK_EQ(kin_process_start_fork(pester, &own, &process), 0);
    CHECK_EQ(kin_process_wait(&process, KIN_FOREVER, &status), -EINTR);
    CHECK_EQ(kin_process_wait(&process, LONG_ENOUGH, &status), -EINTR);
    CHECK_EQ(kin_process_signal(&process, SIGKILL), 0);
    kin_err err;
    while ((err = kin_process_wait(&process, LONG_ENOUGH, &status)) == -EINTR) continue;
    CHECK_EQ(err, 0);
    CHECK_EQ(status, -SIGKILL);
    kin_process_close(&process);
    sigaction(SIGUSR1, &before, NULL);
}

static void wait_for_what_is_not_ours(void) {
    int status;
    kin_process process = spawned("exit", "3"), stranger;
    CHECK_EQ(waitpid(process.pid, NULL, 0), process.pid);
    CHECK_EQ(kin_process_wait(&process, LONG_ENOUGH, &status), -ECHILD);
    kin_process_close(&process);

    CHECK_EQ(kin_process_open(getppid(), &stranger), 0);
    CHECK_EQ(kin_process_wait(&stranger, LONG_ENOUGH, &status), -ECHILD);
    CHECK_EQ(kin_process_signal(&stranger, 0), 0);
    kin_process_close(&stranger);
    CHECK_EQ(kin_process_open(-1, &stranger), -ESRCH);
}

/* A pidfd goes on meaning the process that it was opened for. */
static void signal_spares_strangers(void) {
    kin_process process = spawned("exit", "0"), copy;
    CHECK_EQ(kin_process_open(process.pid, &copy), 0);
    CHECK_EQ(ended_with(&process), 0);
    CHECK_EQ(kin_process_signal(&copy, SIGKILL), -ESRCH);
    kin_process_close(&copy);
}

/* -- Fork ---------------------------------------------------------------------------------- */

static int shout(void *word) {
    printf("%s", (char *)word);
    return 300 + 5; /* the low 8 bits count: 49 */
}

static void fork_runs_a_function(void) {
    int ends[2];
    make_pipe(ends);
    fflush(stdout);
    int before = dup(STDOUT_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    printf("once ");
    kin_process process;
    char word[] = "child";
    CHECK_EQ(kin_process_start_fork(shout, word, &process), 0);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    CHECK_EQ(ended_with(&process), 49);
    CHECK_EQ(strcmp(hear_all(ends[0]), "once child"), 0);
    close(ends[0]);
}

static void tests(void) {
    int before = count_fds(getpid());
    exec_says_why_it_failed();
    exec_says_why_it_failed(); /* the second time without the pipe */
    exec_keeps_what_it_is_told();
    exec_sets_signals();
    exec_gives_environment();
    exec_in_many_threads();
    wait_gives_exit_codes();
    wait_keeps_to_its_deadline();
    wait_is_interrupted();
    wait_for_what_is_not_ours();
    signal_spares_strangers();
    fork_runs_a_function();
    CHECK_EQ(count_fds(getpid()), before);
}

int main(int argc, char **argv) {
    if (argc > 1) return run_word(argc, argv);
    here_and_on_old_system(tests);
    return 0;
}
