/* Channels: messages of all sizes come out as they went in, in whatever pieces the bytes arrive, and
 * what is no message is an error that says so. */
#include <kin.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "check.h"

typedef struct ends {
    kin_channel reader, writer;
} ends;

static ends open_ends(bool duplex) {
    int fds[2];
    ends made;
    CHECK_EQ(kin_channel_pair(duplex, fds), 0);
    kin_channel_init(&made.reader, fds[0]);
    kin_channel_init(&made.writer, fds[1]);
    CHECK_EQ(made.reader.is_socket, duplex);
    return made;
}

static void close_ends(ends *both) {
    close(both->reader.fd);
    close(both->writer.fd);
}

static kin_err send_all(kin_channel *channel, const kin_part *parts, size_t count) {
    kin_sending sending;
    kin_sending_init(&sending, parts, count);
    return kin_channel_send(channel, &sending, KIN_FOREVER);
}

static kin_err send_text(kin_channel *channel, const char *text) {
    kin_part part = {text, strlen(text)};
    return send_all(channel, &part, 1);
}

/* The next message; its length in *len. */
static uint8_t *recv_all(kin_channel *channel, uint64_t *len) {
    size_t done = 0;
    CHECK_EQ(kin_channel_recv_len(channel, len, KIN_FOREVER), 0);
    uint8_t *data = malloc((size_t)*len + 1);
    CHECK(data);
    CHECK_EQ(kin_channel_recv(channel, data, (size_t)*len, &done, KIN_FOREVER), 0);
    CHECK_EQ(done, *len);
    return data;
}

static void hears(kin_channel *channel, const char *text) {
    uint64_t len;
    uint8_t *data = recv_all(channel, &len);
    CHECK_EQ(len, strlen(text));
    CHECK(memcmp(data, text, (size_t)len) == 0);
    free(data);
}

static void write_raw(const ends *both, const void *data, size_t len) {
    CHECK_EQ(write(both->writer.fd, data, len), (long long)len);
}

/* -- Sizes ------------------------------------------------------------------------ */

static const size_t sizes[] = {0, 1, 4091, 4092, 4093, 65535, 65536, 1 << 20, 5000000};
enum { SIZES = sizeof sizes / sizeof *sizes, PARTS = 40 };

static uint8_t byte_at(size_t i) {
    return (uint8_t)(i * 131 + (i >> 8) * 7);
}

/* Each size in one part, and in many of different lengths, empty ones among them. */
static void *send_sizes(void *arg) {
    ends *both = arg;
    uint8_t *data = malloc(sizes[SIZES - 1]);
    CHECK(data);
    for (size_t i = 0; i < sizes[SIZES - 1]; i++) data[i] = byte_at(i);
    for (int i = 0; i < SIZES; i++) {
        kin_part parts[PARTS] = {{data, sizes[i]}};
        CHECK_EQ(send_all(&both->writer, parts, 1), 0);
        size_t done = 0;
        for (int j = 0; j < PARTS; j++) {
            size_t len = j == PARTS - 1 ? sizes[i] - done : (sizes[i] - done) * (size_t)(j % 4) / 9;
            parts[j] = (kin_part){data + done, len};
            done += len;
        }
        CHECK_EQ(send_all(&both->writer, parts, PARTS), 0);
    }
    free(data);
    return NULL;
}

static void any_size_arrives(bool duplex) {
    ends both = open_ends(duplex);
    pthread_t sender;
    CHECK_EQ(pthread_create(&sender, NULL, send_sizes, &both), 0);
    for (int i = 0; i < 2 * SIZES; i++) {
        uint64_t len;
        uint8_t *data = recv_all(&both.reader, &len);
        CHECK_EQ(len, sizes[i / 2]);
        for (size_t j = 0; j < len; j++) CHECK(data[j] == byte_at(j));
        free(data);
    }
    CHECK_EQ(pthread_join(sender, NULL), 0);
    close_ends(&both);
}

static void a_long_length_has_twelve_bytes(void) {
    kin_sending sending;
    kin_part part = {NULL, 0x7fffffff};
    kin_sending_init(&sending, &part, 1);
    CHECK_EQ(sending.head_len, 4);
    CHECK(memcmp(sending.head, "\x7f\xff\xff\xff", 4) == 0);
    kin_part parts[] = {{NULL, 0x80000000u}, {NULL, (size_t)1 << 40}};
    kin_sending_init(&sending, parts, 2);
    CHECK_EQ(sending.head_len, 12);
    CHECK(memcmp(sending.head, "\xff\xff\xff\xff\0\0\1\0\x80\0\0\0", 12) == 0);
}

/* A packet is a system call, and nothing may be read of the next one. */
static void a_small_message_is_one_call(void) {
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    kin_channel channel;
    kin_channel_init(&channel, fds[0]);
    CHECK_EQ(send_text(&channel, "hello"), 0);
    char got[16];
    CHECK_EQ(read(fds[1], got, sizeof got), 9);
    CHECK(memcmp(got, "\0\0\0\5hello", 9) == 0);
    close(fds[0]);
    close(fds[1]);
}

/* -- Pieces and what is none --------------------------------------------------------- */

/* Byte by byte: each call goes on where the one before was. */
static void pieces_are_put_together(bool duplex) {
    static const char wire[] = "\0\0\0\3abc\xff\xff\xff\xff\0\0\0\0\0\0\0\2de";
    ends both = open_ends(duplex);
    char told[8] = "";
    size_t told_len = 0, done = 0;
    uint64_t len;
    bool has_len = false;
    for (size_t i = 0; i < sizeof wire - 1; i++) {
        write_raw(&both, wire + i, 1);
        kin_err err = has_len ? 0 : kin_channel_recv_len(&both.reader, &len, KIN_NOW);
        if (err == -EAGAIN) continue;
        CHECK_EQ(err, 0);
        has_len = true;
        err = kin_channel_recv(&both.reader, told + told_len, (size_t)len, &done, KIN_NOW);
        if (err == -EAGAIN) continue;
        CHECK_EQ(err, 0);
        told_len += done;
        done = 0;
        has_len = false;
    }
    CHECK(strcmp(told, "abcde") == 0);
    CHECK_EQ(kin_channel_poll(&both.reader, KIN_NOW), -ETIMEDOUT);
    close_ends(&both);
}

static void what_is_no_length(const char *head, size_t len, kin_err expected) {
    ends both = open_ends(true);
    uint64_t unused;
    write_raw(&both, head, len);
    close(both.writer.fd);
    CHECK_EQ(kin_channel_recv_len(&both.reader, &unused, KIN_FOREVER), expected);
    close(both.reader.fd);
}

static void the_end_is_told(bool duplex) {
    ends both = open_ends(duplex);
    uint64_t len;
    size_t done = 0;
    char data[8];
    CHECK_EQ(send_text(&both.writer, "last"), 0);
    write_raw(&both, "\0\0\0\7half", 8);
    close(both.writer.fd);
    hears(&both.reader, "last");
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, KIN_FOREVER), 0);
    CHECK_EQ(kin_channel_recv(&both.reader, data, 7, &done, KIN_FOREVER), KIN_ECUT);
    CHECK_EQ(done, 4);
    CHECK_EQ(kin_channel_poll(&both.reader, KIN_FOREVER), 0);
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, KIN_FOREVER), KIN_EEND);
    close(both.reader.fd);
}

static void nobody_reads(bool duplex) {
    ends both = open_ends(duplex);
    close(both.reader.fd);
    CHECK_EQ(send_text(&both.writer, "x"), -EPIPE);
    close(both.writer.fd);
}

/* -- Waiting ------------------------------------------------------------------------ */

static void deadlines_are_kept(bool duplex) {
    ends both = open_ends(duplex);
    uint64_t len;
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, KIN_NOW), -EAGAIN);
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, kin_deadline_after(1000000)), -ETIMEDOUT);
    CHECK_EQ(kin_channel_poll(&both.reader, kin_deadline_after(1000000)), -ETIMEDOUT);
    uint8_t *data = calloc(1, 1 << 20);
    kin_part part = {data, 1 << 20};
    kin_sending sending;
    kin_sending_init(&sending, &part, 1);
    CHECK_EQ(kin_channel_send(&both.writer, &sending, KIN_NOW), -EAGAIN);
    CHECK_EQ(kin_channel_send(&both.writer, &sending, kin_deadline_after(1000000)), -ETIMEDOUT);
    CHECK(sending.done > 4 && sending.done < sending.len);
    free(data);
    close_ends(&both);
}

static void a_descriptor_may_be_non_blocking(bool duplex) {
    ends both = open_ends(duplex);
    uint64_t len;
    CHECK_EQ(fcntl(both.reader.fd, F_SETFL, O_NONBLOCK), 0);
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, KIN_FOREVER), -EAGAIN);
    CHECK_EQ(send_text(&both.writer, "x"), 0);
    hears(&both.reader, "x");
    close_ends(&both);
}

static void on_alarm(int signo) {
    (void)signo;
}

static void a_signal_ends_the_wait(void) {
    ends both = open_ends(true);
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    uint64_t len;
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    CHECK_EQ(kin_channel_recv_len(&both.reader, &len, KIN_FOREVER), -EINTR);
    CHECK_EQ(kin_channel_poll(&both.reader, KIN_FOREVER), -EINTR);
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK_EQ(send_text(&both.writer, "after"), 0);
    hears(&both.reader, "after");
    close_ends(&both);
}

/* -- Descriptors --------------------------------------------------------------------- */

static void descriptors_travel(void) {
    ends both = open_ends(true), other = open_ends(false);
    int fds[2] = {other.reader.fd, other.writer.fd}, got[4];
    size_t count;
    CHECK_EQ(kin_channel_send_fds(&both.writer, fds, 0, KIN_FOREVER), -EINVAL);
    CHECK_EQ(kin_channel_send_fds(&both.writer, fds, 254, KIN_FOREVER), -EINVAL);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 4, &count, KIN_NOW), -EAGAIN);
    CHECK_EQ(kin_channel_send_fds(&both.writer, fds, 2, KIN_FOREVER), 0);
    close_ends(&other);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 4, &count, KIN_FOREVER), 0);
    CHECK_EQ(count, 2);
    kin_channel_init(&other.reader, got[0]);
    kin_channel_init(&other.writer, got[1]);
    CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    CHECK_EQ(send_text(&other.writer, "by the copies"), 0);
    hears(&other.reader, "by the copies");

    CHECK_EQ(kin_channel_send_fds(&both.writer, got, 2, KIN_FOREVER), 0);
    int next = dup(0);
    close(next);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 1, &count, KIN_FOREVER), -E2BIG);
    write_raw(&both, "\1", 1);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 1, &count, KIN_FOREVER), KIN_EMESSAGELEN);
    CHECK_EQ(dup(0), next); /* nothing was left open */
    close(next);
    close(both.writer.fd);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 1, &count, KIN_FOREVER), KIN_EEND);
    close(both.reader.fd);
    close_ends(&other);
}

static void a_limit_is_an_error(void) {
    ends both = open_ends(true);
    int fds[2] = {0, 0}, got[2];
    size_t count;
    struct rlimit before, tight;
    CHECK_EQ(kin_channel_send_fds(&both.writer, fds, 2, KIN_FOREVER), 0);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = 3;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
    CHECK_EQ(kin_channel_recv_fds(&both.reader, got, 2, &count, KIN_FOREVER), -EMFILE);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    close_ends(&both);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    a_long_length_has_twelve_bytes();
    a_small_message_is_one_call();
    for (int duplex = 0; duplex < 2; duplex++) {
        any_size_arrives(duplex);
        pieces_are_put_together(duplex);
        the_end_is_told(duplex);
        nobody_reads(duplex);
        deadlines_are_kept(duplex);
        a_descriptor_may_be_non_blocking(duplex);
    }
    what_is_no_length("", 0, KIN_EEND);
    what_is_no_length("\0\0", 2, KIN_ECUT);
    what_is_no_length("\xff\xff\xff\xff\0", 5, KIN_ECUT);
    what_is_no_length("\xff\xff\xff\xfe", 4, KIN_EMESSAGELEN);
    what_is_no_length("\x80\0\0\0", 4, KIN_EMESSAGELEN);
    what_is_no_length("\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12, KIN_EMESSAGELEN);
    a_signal_ends_the_wait();
    descriptors_travel();
    a_limit_is_an_error();
    return 0;
}
