/* load: a bounded SMTP load generator for the loopback network. One thread a session, every reply checked.
 *
 *   load -p PORT -n MESSAGES -s SESSIONS [-h 127.0.0.1] [-r] [-b OCTETS | -d FOLDER] [-f FROM] [-t TO] [-T SECONDS]
 *
 * -r keeps a session's connection for all its messages; without it each message has one of its own, EHLO to QUIT.
 * -b makes one message of about so many octets, -d takes the files of a folder in turn (lines ending LF or CRLF).
 * TO may hold %d, which becomes the message's number modulo 50. Prints one line of JSON and ends with 0 if nothing
 * failed. Latency: connect (or MAIL, on a kept connection) until the 250 after the data.
 * Bounds: 200,000 messages, 256 sessions, 600 seconds, 1,000 files, 64 MB a message, 127.0.0.0/8 only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_MESSAGES = 200000, MAX_SESSIONS = 256, MAX_SECONDS = 600, MAX_FILES = 1000, MAX_OCTETS = 64 << 20 };
enum { MAX_ERRORS = 100, RECIPIENTS = 50, REPLY_TIMEOUT_S = 60 };

typedef struct {
    char *octets;
    size_t length;
} Message; /* dot-stuffed, with CRLF line ends and the final dot */

typedef struct {
    int fd; /* -1: not connected */
    size_t length;
    char input[4096];
} Connection;

static struct sockaddr_in server;
static const char *from = "sender@load.test", *to = "user%d@remote.test";
static bool reuse;
static long wanted;
static double deadline;
static Message messages[MAX_FILES];
static int message_count;
static double *latencies;
static atomic_long next_message, accepted, errors, connections;
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static char first_error[256];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fatal(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(2);
}

static void note_error(const char *step, const char *said) {
    pthread_mutex_lock(&error_lock);
    if (!first_error[0]) {
        snprintf(first_error, sizeof first_error, "%s: %.200s", step, said);
        for (char *c = first_error; *c; c++)
            if (*c < ' ' || *c == '"' || *c == '\\') *c = ' ';
    }
    pthread_mutex_unlock(&error_lock);
}

static bool send_all(Connection *c, const char *octets, size_t length) {
    while (length > 0) {
        ssize_t sent = send(c->fd, octets, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        octets += sent;
        length -= (size_t)sent;
    }
    return true;
}

/* Reads one whole reply and tells whether it has the code that is due. */
static bool expect(Connection *c, const char *step, int due) {
    for (;;) {
        char *end = memchr(c->input, '\n', c->length);
        if (end) {
            size_t line = (size_t)(end - c->input) + 1;
            bool is_last = line < 5 || c->input[3] != '-';
            bool is_due = line >= 5 && strtol(c->input, NULL, 10) == due;
            if (!is_due) {
                *end = 0;
                note_error(step, c->input);
                return false;
            }
            c->length -= line;
            memmove(c->input, end + 1, c->length);
            if (!is_last) continue;
            if (c->length == 0) return true;
            note_error(step, "more was said than asked for");
            return false;
        }
        if (c->length == sizeof c->input) {
            note_error(step, "endless reply line");
            return false;
        }
        ssize_t got = recv(c->fd, c->input + c->length, sizeof c->input - c->length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            note_error(step, got == 0 ? "connection closed" : strerror(errno));
            return false;
        }
        c->length += (size_t)got;
    }
}

static bool command(Connection *c, const char *line, int due) {
    if (!send_all(c, line, strlen(line))) {
        note_error(line, strerror(errno));
        return false;
    }
    return expect(c, line, due);
}

static void hang_up(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static bool dial(Connection *c) {
    struct timeval patience = {.tv_sec = REPLY_TIMEOUT_S};
    int one = 1;
    c->length = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) {
        note_error("connect", strerror(errno));
        return false;
    }
    connections++;
    return expect(c, "greeting", 220) && command(c, "EHLO load.test\r\n", 250);
}

static bool deliver(Connection *c, long number) {
    char line[600], recipient[300];
    const Message *message = &messages[number % message_count];
    const char *mark = strstr(to, "%d");
    if (mark)
        snprintf(recipient, sizeof recipient, "%.*s%ld%s", (int)(mark - to), to, number % RECIPIENTS, mark + 2);
    else
        snprintf(recipient, sizeof recipient, "%s", to);
    snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", from);
    if (!command(c, line, 250)) return false;
    snprintf(line, sizeof line, "RCPT TO:<%s>\r\n", recipient);
    if (!command(c, line, 250) || !command(c, "DATA\r\n", 354)) return false;
    if (!send_all(c, message->octets, message->length)) {
        note_error("data", strerror(errno));
        return false;
    }
    return expect(c, "end of data", 250);
}

static void *session(void *unused) {
    Connection c = {.fd = -1};
    (void)unused;
    while (errors < MAX_ERRORS && now() < deadline) {
        long number = next_message++;
        if (number >= wanted) break;
        double start = now();
        if ((c.fd < 0 && !dial(&c)) || !deliver(&c, number)) {
            errors++;
            hang_up(&c);
            continue;
        }
        latencies[accepted++] = now() - start;
        if (!reuse) {
            if (!command(&c, "QUIT\r\n", 221)) errors++;
            hang_up(&c);
        }
    }
    if (c.fd >= 0 && !command(&c, "QUIT\r\n", 221)) errors++;
    hang_up(&c);
    return NULL;
}

static void add_message(const char *text, size_t length) {
    char *out = malloc(2 * length + 8);
    size_t used = 0;
    bool at_start = true;
    if (!out) fatal("no memory");
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\r') continue;
        if (at_start && text[i] == '.') out[used++] = '.';
        at_start = text[i] == '\n';
        if (at_start) out[used++] = '\r';
        out[used++] = text[i];
    }
    if (!at_start) {
        memcpy(out + used, "\r\n", 2);
        used += 2;
    }
    memcpy(out + used, ".\r\n", 3);
    messages[message_count++] = (Message){out, used + 3};
}

static void make_message(size_t size) {
    char *text = malloc(size + 512), line[80];
    size_t used;
    if (!text) fatal("no memory");
    used = (size_t)sprintf(text,
                           "From: Load <sender@load.test>\nTo: User <user@remote.test>\nSubject: a made-up message\n"
                           "Date: Tue, 24 Nov 2026 06:00:00 +0000\nMessage-ID: <made-up@load.test>\n"
                           "MIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\n");
    for (unsigned n = 0; used + 200 < size; n++) { /* the CRLFs count too */
        sprintf(line, "%06u the quick brown fox jumps over the lazy dog and the dog sleeps\n", n);
        memcpy(text + used, line, strlen(line));
        used += strlen(line);
        size--; /* each LF will be two octets */
    }
    add_message(text, used);
    free(text);
}

static void read_folder(const char *folder) {
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[4096];
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (stat(path, &about) == 0 && S_ISREG(about.st_mode) && about.st_size <= MAX_OCTETS && message_count < MAX_FILES) {
            FILE *file = fopen(path, "rb");
            char *text = malloc((size_t)about.st_size + 1);
            if (!file || !text) fatal("cannot read a message");
            add_message(text, fread(text, 1, (size_t)about.st_size, file));
            fclose(file);
            free(text);
        }
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    if (!message_count) fatal("no messages in the folder");
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(long count, int percent) {
    return count ? latencies[(count - 1) * percent / 100] * 1000 : 0;
}

static long number(const char *text, long most, const char *what) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > most) fatal(what);
    return value;
}

int main(int argc, char **argv) {
    const char *host = "127.0.0.1", *folder = NULL;
    long port = 0, sessions = 1, seconds = 120, size = 10240;
    int option;
    while ((option = getopt(argc, argv, "h:p:n:s:rb:d:f:t:T:")) != -1) switch (option) {
            case 'h': host = optarg; break;
            case 'p': port = number(optarg, 65535, "bad port"); break;
            case 'n': wanted = number(optarg, MAX_MESSAGES, "too many messages"); break;
            case 's': sessions = number(optarg, MAX_SESSIONS, "too many sessions"); break;
            case 'r': reuse = true; break;
            case 'b': size = number(optarg, MAX_OCTETS, "too many octets"); break;
            case 'd': folder = optarg; break;
            case 'f': from = optarg; break;
            case 't': to = optarg; break;
            case 'T': seconds = number(optarg, MAX_SECONDS, "too many seconds"); break;
            default: return 2;
        }
    if (!port || !wanted || optind != argc) fatal("-p and -n are needed, and no other words");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &server.sin_addr) != 1 || ntohl(server.sin_addr.s_addr) >> 24 != 127)
        fatal("only addresses in 127.0.0.0/8");
    if (folder)
        read_folder(folder);
    else
        make_message((size_t)size);
    latencies = calloc((size_t)wanted, sizeof *latencies);
    if (!latencies) fatal("no memory");

    pthread_t threads[MAX_SESSIONS];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    double start = now();
    deadline = start + (double)seconds;
    for (long i = 0; i < sessions; i++)
        if (pthread_create(&threads[i], &attributes, session, NULL)) fatal("no thread");
    for (long i = 0; i < sessions; i++) pthread_join(threads[i], NULL);
    double took = now() - start;

    long done = accepted;
    qsort(latencies, (size_t)done, sizeof *latencies, by_value);
    printf("{\"accepted\": %ld, \"errors\": %ld, \"connections\": %ld, \"octets\": %zu, \"seconds\": %.4f, "
           "\"rate\": %.2f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"first_error\": \"%s\"}\n",
           done, (long)errors, (long)connections, messages[0].length, took, (double)done / took, percentile(done, 50),
           percentile(done, 99), done ? latencies[done - 1] * 1000 : 0, first_error);
    return errors || done < wanted ? 1 : 0;
}
