/*
 * A few busy clients of a relay.  Each makes calls all the time, or moves one bulk stream.
 *
 * It prints {"event": "opened"} as one line of JSON when all clients are at work.  Then it answers
 * the commands "mark" and "report" on standard input, like load.c.
 *
 * usage: calls PORT calls|download|upload CONNECTIONS DEPTH [CERTIFICATE KEY CONFIRMED]
 *
 * With a client's certificate and key, the clients speak TLS 1.2; build with -DWITH_TLS.
 * CONFIRMED is 1 if the server sends the byte with which libvirt accepts a client, else 0.
 */
#define _GNU_SOURCE
#include "wire.h"

#ifdef WITH_TLS
#include <openssl/ssl.h>

#define CIPHERS "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#endif

#define INPUT 262144
#define DEPTH_MAX 256
#define PART 64 /* bytes kept of a message; the rest is skipped */

enum work { CALLS, DOWNLOAD, UPLOAD };

struct client {
    uint32_t skip, have, serial, received, chunks, chunkAt;
    int fd, opened, streaming, pongs;
#ifdef WITH_TLS
    SSL *tls;
#endif
    unsigned char part[PART];
    double sentAt[DEPTH_MAX];
};

static struct client *clients;
static enum work work;
static int connections, depth, opened, poller;
static unsigned char input[INPUT], chunk[HEADER_SIZE + STREAM_CHUNK];
static unsigned long long calls, bytes;
static double marked, markedCpu;
static float *latencies;
static size_t latencyCount, latencyRoom;

static void
lose(const char *why)
{
    fprintf(stderr, "calls: %s\n", why);
    exit(1);
}

static double
cpuTime(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Send or receive without blocking; errno is as after the system call. */
static ssize_t
sendSome(struct client *c, const void *bytes, size_t length)
{
#ifdef WITH_TLS
    if (c->tls) {
        int n = SSL_write(c->tls, bytes, (int)length);

        errno = n <= 0 && SSL_get_error(c->tls, n) == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
        return n > 0 ? n : -1;
    }
#endif
    return send(c->fd, bytes, length, MSG_NOSIGNAL);
}

static ssize_t
receiveSome(struct client *c)
{
#ifdef WITH_TLS
    if (c->tls) {
        int n = SSL_read(c->tls, input, sizeof input);

        errno = n <= 0 && SSL_get_error(c->tls, n) == SSL_ERROR_WANT_READ ? EAGAIN : EIO;
        return n > 0 ? n : -1;
    }
#endif
    return recv(c->fd, input, sizeof input, 0);
}

static int
hasMore(struct client *c)
{
#ifdef WITH_TLS
    return c->tls && SSL_pending(c->tls) > 0;
#else
    (void)c;
    return 0;
#endif
}

static void
transmit(struct client *c, const void *message, size_t length)
{
    if (sendSome(c, message, length) != (ssize_t)length)
        lose("a call could not be sent at once");
}

static void
call(struct client *c, uint32_t procedure, const void *arguments, uint32_t length)
{
    unsigned char message[256];
    unsigned char *end =
        putHeader(message, length, REMOTE_PROGRAM, procedure, CALL, c->serial, OK);

    if (length)
        memcpy(end, arguments, length);
    c->sentAt[c->serial % DEPTH_MAX] = now();
    c->serial++;
    transmit(c, message, HEADER_SIZE + length);
}

/* Call an upload or a download: a volume's pool, name and key, then offset, length and flags. */
static void
callVolume(struct client *c)
{
    unsigned char arguments[64] = {0}, *at = arguments;

    for (int i = 0; i < 3; i++) {
        at = put32(at, 4);
        memcpy(at, "bulk", 4);
        at += 4;
    }
    call(c, work == DOWNLOAD ? VOLUME_DOWNLOAD : VOLUME_UPLOAD, arguments,
         (uint32_t)(at - arguments) + 8 + 8 + 4);
}

static void
wantWriting(struct client *c, int wanted)
{
    struct epoll_event event = {.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                .data.u32 = (uint32_t)(c - clients)};

    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void
begin(struct client *c)
{
    c->opened = 1;
    opened++;
    if (work == CALLS) {
        for (int i = 0; i < depth; i++)
            call(c, GET_HOSTNAME, NULL, 0);
    } else {
        callVolume(c);
    }
    if (opened == connections) {
        printf("{\"event\": \"opened\", \"opened\": %d}\n", opened);
        fflush(stdout);
    }
}

static void
answered(struct client *c, const struct header *h)
{
    static const unsigned char feature[4] = {0, 0, 0, FEATURE_KEEPALIVE};
    unsigned char message[64];

    switch (h->procedure) {
    case AUTH_LIST:
        call(c, SUPPORTS_FEATURE, feature, 4);
        return;
    case SUPPORTS_FEATURE:
        putOpen(message, c->serial);
        call(c, CONNECT_OPEN, message + HEADER_SIZE, 28);
        return;
    case CONNECT_OPEN:
        begin(c);
        return;
    case GET_HOSTNAME:
        calls++;
        if (latencyCount < latencyRoom)
            latencies[latencyCount++] = (float)(now() - c->sentAt[h->serial % DEPTH_MAX]);
        call(c, GET_HOSTNAME, NULL, 0);
        return;
    case VOLUME_UPLOAD:
        c->streaming = 1;
        wantWriting(c, 1);
    }
}

static void
sendPongs(struct client *c)
{
    unsigned char pong[HEADER_SIZE];

    putHeader(pong, 0, KEEPALIVE_PROGRAM, PONG, MESSAGE, 0, OK);
    for (; c->pongs; c->pongs--)
        transmit(c, pong, sizeof pong);
}

static void
messageReceived(struct client *c)
{
    struct header h = getHeader(c->part);

    if (h.program == KEEPALIVE_PROGRAM) {
        if (h.procedure == PING) {
            c->pongs++;
            if (!c->chunkAt)
                sendPongs(c);
        }
    } else if (h.status == ERROR) {
        lose("the server answered with an error");
    } else if (h.type == REPLY) {
        answered(c, &h);
    } else if (h.type == STREAM && h.status == CONTINUE) {
        if (get32(c->part + HEADER_SIZE) != c->received++)
            lose("a stream message was lost, doubled or out of order");
    }
}

static void
takeIn(struct client *c, ssize_t n)
{
    unsigned char *at = input;

    if (work == DOWNLOAD)
        bytes += (unsigned long long)n;
    while (n > 0) {
        uint32_t length, wanted = HEADER_SIZE, take;

        if (c->skip) {
            take = c->skip < (uint32_t)n ? c->skip : (uint32_t)n;
            c->skip -= take;
            at += take;
            n -= take;
            continue;
        }
        if (c->have >= HEADER_SIZE) {
            length = get32(c->part);
            wanted = length < PART ? length : PART;
        }
        take = wanted - c->have < (uint32_t)n ? wanted - c->have : (uint32_t)n;
        memcpy(c->part + c->have, at, take);
        c->have += take;
        at += take;
        n -= take;
        if (c->have < HEADER_SIZE)
            continue;
        length = get32(c->part);
        if (length < HEADER_SIZE || length > MESSAGE_MAX)
            lose("a message has an impossible length");
        if (c->have < (length < PART ? length : PART))
            continue;
        messageReceived(c);
        c->skip = length - c->have;
        c->have = 0;
    }
}

static void
receive(struct client *c)
{
    do {
        ssize_t n = receiveSome(c);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            lose("the server closed a connection");
        takeIn(c, n);
    } while (hasMore(c));
}

/* Send stream messages until the socket's buffer is full. */
static void
upload(struct client *c)
{
    while (c->streaming) {
        ssize_t n;

        if (!c->chunkAt)
            sendPongs(c);
        put32(putHeader(chunk, STREAM_CHUNK, REMOTE_PROGRAM, VOLUME_UPLOAD, STREAM,
                        c->serial - 1, CONTINUE),
              c->chunks);
        n = sendSome(c, chunk + c->chunkAt, sizeof chunk - c->chunkAt);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            lose("the server closed a stream");
        bytes += (unsigned long long)n;
        c->chunkAt += (uint32_t)n;
        if (c->chunkAt == sizeof chunk) {
            c->chunkAt = 0;
            c->chunks++;
        }
    }
}

static int
ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void
obey(void)
{
    char line[64];
    ssize_t n = read(0, line, sizeof line - 1);

    if (n <= 0)
        exit(0);
    line[n] = 0;
    if (strstr(line, "report")) {
        double elapsed = now() - marked, cpu = cpuTime() - markedCpu;

        printf("{\"event\": \"report\", \"seconds\": %.4f, \"calls\": %llu, \"bytes\": %llu, "
               "\"generatorCpu\": %.4f",
               elapsed, calls, bytes, cpu / elapsed);
        if (latencyCount) {
            qsort(latencies, latencyCount, sizeof *latencies, ascending);
            printf(", \"p50\": %.6f, \"p99\": %.6f", latencies[latencyCount / 2],
                   latencies[latencyCount * 99 / 100]);
        }
        printf("}\n");
    } else {
        printf("{\"event\": \"marked\"}\n");
        marked = now();
        markedCpu = cpuTime();
    }
    calls = bytes = latencyCount = 0;
    fflush(stdout);
}

#ifdef WITH_TLS
static SSL_CTX *context;

static void
prepareTls(const char *certificate, const char *key)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_set_cipher_list(context, CIPHERS) != 1
        || SSL_CTX_use_certificate_file(context, certificate, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        lose("the certificate or the key cannot be used");
}

/* Do the TLS handshake, while the socket is still blocking. */
static void
secure(struct client *c, int confirmed)
{
    c->tls = SSL_new(context);
    SSL_set_fd(c->tls, c->fd);
    if (SSL_connect(c->tls) != 1)
        lose("the TLS handshake failed");
    if (confirmed && SSL_read(c->tls, input, 1) != 1)
        lose("the server did not accept the certificate");
}
#endif

static void
launch(struct client *c, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(c - clients)};
    struct linger reset = {1, 0};

    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setNoDelay(c->fd);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
        fail("connect");
#ifdef WITH_TLS
    secure(c, atoi(argv[7]));
#endif
    setNonBlocking(c->fd);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0)
        fail("epoll_ctl");
    call(c, AUTH_LIST, NULL, 0);
}

int
main(int argc, char **argv)
{
    struct epoll_event events[256], command = {.events = EPOLLIN, .data.u32 = UINT32_MAX};

#ifdef WITH_TLS
    if (argc != 8) {
        fprintf(stderr, "usage: calls PORT WORK CONNECTIONS DEPTH CERTIFICATE KEY CONFIRMED\n");
        return 2;
    }
    prepareTls(argv[5], argv[6]);
#else
    if (argc != 5) {
        fprintf(stderr, "usage: calls PORT calls|download|upload CONNECTIONS DEPTH\n");
        return 2;
    }
#endif
    work = *argv[2] == 'c' ? CALLS : *argv[2] == 'd' ? DOWNLOAD : UPLOAD;
    connections = atoi(argv[3]);
    depth = atoi(argv[4]);
    if (depth > DEPTH_MAX)
        depth = DEPTH_MAX;
    clients = allocate((size_t)connections, sizeof *clients);
    latencyRoom = 4u << 20;
    latencies = allocate(latencyRoom, sizeof *latencies);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, 0, &command) < 0)
        fail("epoll");
    for (int i = 0; i < connections; i++)
        launch(clients + i, argv);
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);

        for (int i = 0; i < n; i++) {
            struct client *c = clients + events[i].data.u32;

            if (events[i].data.u32 == UINT32_MAX) {
                obey();
                continue;
            }
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(c);
            if (events[i].events & EPOLLOUT)
                upload(c);
        }
    }
}
