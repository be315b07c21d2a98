/* A load generator that costs little beside what it measures.
 *
 * It sends one prepared frame again and again over some connections, each with a number of requests in flight (closed
 * loop) or all together at a rate (open loop, latency counted from the scheduled time). Answers are Kafka's: a length, then
 * a body; the int16 at a given place of every answer must be 0, and anything else is counted as an error.
 *
 * usage: load PORT FRAME_FILE CONNECTIONS DEPTH SECONDS ERROR_PLACE [RATE]
 * prints: answers/s, bytes/s sent and received, errors, and latency percentiles in microseconds, as one line of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEPTH = 4096, MAX_CONNECTIONS = 1024, HEAD = 256 };
static const double WARM_UP_S = 0.5;

typedef struct {
    int fd, in_flight, head_size, writable;
    size_t unsent, left;            /* of the frame being sent, of the answer being received */
    double began[MAX_DEPTH];        /* a ring: when each request in flight began */
    unsigned first, last;
    unsigned char head[HEAD];       /* the answer's beginning: its length and its error code */
} Connection;

static char *frame;
static size_t frame_size, error_place;
static int depth, poller;
static double start, stop, rate, due;
static long sent, answers, errors, received;
static int error_code;              /* the last one seen */
static float *latencies;
static const long MAX_LATENCIES = 20000000;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) { perror(what); exit(1); }

static void watch(Connection *c, int writable) {
    if (c->writable == writable) return;
    struct epoll_event e = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
    c->writable = writable;
}

/* Send what is left of a frame, and new frames while there is room. */
static void pump(Connection *c) {
    for (;;) {
        if (!c->unsent) {
            double t = now();
            if (c->in_flight >= depth || t >= stop || (rate > 0 && t < due)) break;
            c->began[c->last++ % MAX_DEPTH] = rate > 0 ? due : t;
            if (rate > 0) due += 1 / rate;
            c->in_flight++;
            sent++;
            c->unsent = frame_size;
        }
        ssize_t n = send(c->fd, frame + frame_size - c->unsent, c->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN) die("send");
            watch(c, 1);
            return;
        }
        c->unsent -= n;
    }
    watch(c, 0);
}

static void answered(Connection *c) {
    double t = now(), began = c->began[c->first++ % MAX_DEPTH];
    c->in_flight--;
    c->head_size = 0;
    if (t < start + WARM_UP_S) return;
    int code = c->head[4 + error_place] << 8 | c->head[5 + error_place];
    if (code) errors++, error_code = code;
    if (answers < MAX_LATENCIES) latencies[answers] = (t - began) * 1e6;
    answers++;
}

static void take(Connection *c, unsigned char *at, ssize_t n) {
    while (n > 0) {
        if (c->head_size < 4) {
            c->head[c->head_size++] = *at++, n--;
            if (c->head_size == 4)
                c->left = (size_t)c->head[0] << 24 | c->head[1] << 16 | c->head[2] << 8 | c->head[3];
            continue;
        }
        size_t size = (size_t)n < c->left ? (size_t)n : c->left;
        size_t keep = HEAD - c->head_size < size ? HEAD - c->head_size : size;
        memcpy(c->head + c->head_size, at, keep);
        c->head_size += keep;
        c->left -= size, at += size, n -= size;
        if (!c->left) answered(c);
    }
}

static void receive(Connection *c) {
    static unsigned char buffer[1 << 20];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) die("the connection ended");
    if (n < 0) return;
    if (now() > start + WARM_UP_S) received += n;
    take(c, buffer, n);
    pump(c);
}

static void read_frame(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    frame_size = ftell(file);
    rewind(file);
    frame = malloc(frame_size);
    if (fread(frame, 1, frame_size, file) != frame_size) die(path);
    fclose(file);
}

static void dial(Connection *c, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(double p) { return answers ? latencies[(long)(p * (answers - 1))] : 0; }

int main(int argc, char **argv) {
    if (argc < 7) { fprintf(stderr, "load PORT FRAME CONNECTIONS DEPTH SECONDS ERROR_PLACE [RATE]\n"); return 2; }
    static Connection connections[MAX_CONNECTIONS];
    int count = atoi(argv[3]);
    depth = atoi(argv[4]);
    if (count < 1 || count > MAX_CONNECTIONS || depth < 1 || depth > MAX_DEPTH) return 2;
    double seconds = atof(argv[5]);
    error_place = atol(argv[6]);
    if (error_place + 6 > HEAD) return 2;
    rate = argc > 7 ? atof(argv[7]) : 0;
    read_frame(argv[2]);
    latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    poller = epoll_create1(0);
    for (int i = 0; i < count; i++) dial(&connections[i], atoi(argv[1]));
    start = due = now();
    stop = start + WARM_UP_S + seconds;
    for (int i = 0; i < count; i++) pump(&connections[i]);
    while (now() < stop) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, rate > 0 ? 0 : 100);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) pump(c);
            if (events[i].events & ~EPOLLOUT) receive(c);
        }
        for (int i = 0; rate > 0 && i < count && now() >= due; i++) pump(&connections[i]);
    }
    qsort(latencies, answers < MAX_LATENCIES ? answers : MAX_LATENCIES, sizeof *latencies, ascending);
    printf("{\"per_s\": %.1f, \"sent_mb_s\": %.2f, \"received_mb_s\": %.2f, \"errors\": %ld, \"error_code\": %d, \"p50_us\": %.0f, "
           "\"p99_us\": %.0f, \"p999_us\": %.0f, \"max_us\": %.0f}\n",
           answers / seconds, answers / seconds * frame_size / 1e6, received / seconds / 1e6, errors, error_code, percentile(0.5),
           percentile(0.99), percentile(0.999), percentile(1));
    return 0;
}
