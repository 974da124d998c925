/*
 * Many idle clients of one keepalive server: open them, answer their pings, and time both.
 *
 * Speaks libvirt's RPC (authentication list, keepalive feature, open, PING and PONG), over TLS if
 * built with -DWITH_TLS, or WebSocket (RFC 6455).  Clients are opened at a steady rate, or as fast
 * as the server accepts them with a limit on those opening at a time, or all at once.
 *
 * It prints one JSON object per line: {"event": "opened"} when every client has opened or failed,
 * then an answer to each command read from standard input: "mark" starts a window, "report" prints
 * the window's figures, "mute" stops answering pings, "quit" ends.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

#define CLIENTS_PER_ADDRESS 25000 /* below the number of local ports that one address has */
#define LAUNCH 128                /* connections started between two polls of the sockets */
#define PART 192

enum state {
    UNUSED,
    CONNECTING,
    SECURING,
    CONFIRMING,
    UPGRADING,
    LISTING,
    ASKING,
    OPENING,
    OPENED,
    GONE,
};

struct client {
    double started, sent, interval;
    uint32_t skip;
    int fd, have;
    unsigned char state, matched;
    unsigned char part[PART]; /* the beginning of a message; the rest is skipped */
#ifdef WITH_TLS
    SSL *tls;
#endif
};

struct samples {
    float *at;
    size_t have, room;
};

static struct {
    const char *host, *certificate, *key;
    int port, clients, inflight, count, websocket, lines, tunnel, tls, spread, source;
    double rate, interval, timeout, deadline;
} option = {"127.0.0.1", NULL, NULL, 0, 1, 256, 5, 0, 0, 0, 0, 0, 0, 0, 2, 30, 120};

static struct client *clients;
static struct sockaddr_in server;
static int poller, launched, opening, opened, refused, timedOut, lost, muted;
static double begun, lastOpened, marked, markedCpu;
static struct samples pingLate, pongLate, deathLate;
static char firstError[160];
static unsigned char pong[HEADER_SIZE], received[65536];
static const unsigned char maskedPong[6 + 125] = {0x8a};
#ifdef WITH_TLS
static SSL_CTX *context;
#endif

static void
note(const char *format, ...)
{
    va_list arguments;

    if (firstError[0])
        return;
    va_start(arguments, format);
    vsnprintf(firstError, sizeof firstError, format, arguments);
    va_end(arguments);
    for (char *c = firstError; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32 || (unsigned char)*c > 126)
            *c = '\'';
}

static void
add(struct samples *s, double value)
{
    if (s->have == s->room) {
        s->room = s->room ? 2 * s->room : 65536;
        s->at = realloc(s->at, s->room * sizeof *s->at);
        if (!s->at)
            fail("realloc");
    }
    s->at[s->have++] = (float)value;
}

static double
cpuTime(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void
watch(int index, int operation, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.u32 = (uint32_t)index};

    if (epoll_ctl(poller, operation, clients[index].fd, &event) < 0)
        fail("epoll_ctl");
}

static void
drop(struct client *c)
{
#ifdef WITH_TLS
    if (c->tls)
        SSL_free(c->tls);
    c->tls = NULL;
#endif
    close(c->fd);
    if (c->state == OPENED) {
        lost++;
        if (muted)
            add(&deathLate, now() - c->sent - c->interval * (option.count + 1));
    } else {
        opening--;
    }
    c->state = GONE;
}

/* Send all bytes, or fail: a client's messages always fit the socket's empty buffer. */
static int
transmit(struct client *c, const void *bytes, size_t length)
{
    ssize_t n;

#ifdef WITH_TLS
    if (c->tls)
        n = SSL_write(c->tls, bytes, (int)length);
    else
#endif
        n = send(c->fd, bytes, length, MSG_NOSIGNAL);
    c->sent = now();
    return n == (ssize_t)length ? 0 : -1;
}

static int
call(struct client *c, enum state state)
{
    unsigned char message[128], *end = message;

    c->state = (unsigned char)state;
    if (state == LISTING) {
        end = putHeader(message, 0, REMOTE_PROGRAM, AUTH_LIST, CALL, 0, OK);
    } else if (state == ASKING) {
        end = putHeader(message, 4, REMOTE_PROGRAM, SUPPORTS_FEATURE, CALL, 1, OK);
        end = put32(end, FEATURE_KEEPALIVE);
    } else {
        end = putOpen(message, 2);
    }
    return transmit(c, message, (size_t)(end - message));
}

static int
upgrade(struct client *c)
{
    char request[256];
    int n = snprintf(request, sizeof request,
                     "GET / HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: a2VlcGFsaXZlIGNsaWVudA==\r\n\r\n",
                     option.host, option.port);

    c->state = UPGRADING;
    return transmit(c, request, (size_t)n);
}

/* The first message of a client of kaproto's tunnel: its shortest interval is 100 ms. */
static int
enter(struct client *c)
{
    unsigned char message[HEADER_SIZE + 4];
    unsigned char *end = putHeader(message, 4, TUNNEL_PROGRAM, 1, CALL, 0, OK);

    c->state = OPENING;
    end = put32(end, 100);
    return transmit(c, message, (size_t)(end - message));
}

static int
ask(struct client *c)
{
    static const char line[] = "KEEPALIVE 0.1\r\n";

    c->state = OPENING;
    return transmit(c, line, sizeof line - 1);
}

static void
succeed(struct client *c)
{
    c->state = OPENED;
    opening--;
    opened++;
    lastOpened = now();
}

/* Answer a ping, and record how late the ping and its pong are. */
static int
answer(struct client *c, const void *bytes, size_t length)
{
    double due = c->sent + c->interval, time = now();

    if (muted)
        return 0;
    if (transmit(c, bytes, length) < 0) {
        note("a pong could not be sent: %s", strerror(errno));
        return -1;
    }
    if (c->state == OPENED && marked > 0) {
        add(&pingLate, time - due);
        add(&pongLate, c->sent - due);
    }
    return 0;
}

static int
messageReceived(struct client *c)
{
    struct header h = getHeader(c->part);

    if (h.program == KEEPALIVE_PROGRAM)
        return h.procedure == PING ? answer(c, pong, sizeof pong) : 0;
    if (h.type != REPLY)
        return 0;
    if (h.status != OK) {
        int length = (int)get32(c->part + HEADER_SIZE + 12);

        if (h.length < HEADER_SIZE + 16 || length < 0 || length > PART - HEADER_SIZE - 16)
            length = 0;
        note("procedure %u refused: %.*s", h.procedure, length, c->part + HEADER_SIZE + 16);
        return -1;
    }
    if (c->state == LISTING)
        return call(c, ASKING);
    if (c->state == ASKING) {
        if (c->have < HEADER_SIZE + 4 || !get32(c->part + HEADER_SIZE)) {
            note("the server says it has no keepalive");
            return -1;
        }
        return call(c, OPENING);
    }
    if (c->state == OPENING)
        succeed(c);
    return 0;
}

/* Fill the client's part up to "wanted" bytes; true when it has that many. */
static int
gather(struct client *c, unsigned char **at, ssize_t *n, size_t wanted)
{
    size_t take = wanted - (size_t)c->have;

    if (take > (size_t)*n)
        take = (size_t)*n;
    memcpy(c->part + c->have, *at, take);
    c->have += (int)take;
    *at += take;
    *n -= (ssize_t)take;
    return (size_t)c->have == wanted;
}

static void
discard(struct client *c, unsigned char **at, ssize_t *n)
{
    uint32_t take = c->skip < (uint32_t)*n ? c->skip : (uint32_t)*n;

    c->skip -= take;
    *at += take;
    *n -= take;
}

static int
libvirtReceived(struct client *c, unsigned char *at, ssize_t n)
{
    while (n > 0) {
        uint32_t length, wanted;

        if (c->skip) {
            discard(c, &at, &n);
            continue;
        }
        if (c->have < HEADER_SIZE && !gather(c, &at, &n, HEADER_SIZE))
            continue;
        length = get32(c->part);
        if (length < HEADER_SIZE || length > MESSAGE_MAX) {
            note("a message of %u bytes was announced", length);
            return -1;
        }
        wanted = length < PART ? length : PART;
        if (!gather(c, &at, &n, wanted))
            continue;
        if (messageReceived(c) < 0)
            return -1;
        c->skip = length - wanted;
        c->have = 0;
    }
    return 0;
}

static int
websocketReceived(struct client *c, unsigned char *at, ssize_t n)
{
    static const char end[4] = "\r\n\r\n";

    while (n > 0) {
        uint32_t length;

        if (c->state == UPGRADING) {
            if (c->have < 12 && !gather(c, &at, &n, 12))
                continue;
            if (memcmp(c->part + 9, "101", 3)) {
                note("upgrade refused: %.12s", c->part);
                return -1;
            }
            c->matched = *at == end[c->matched] ? c->matched + 1 : *at == '\r';
            at++;
            n--;
            if (c->matched == 4) {
                c->have = 0;
                succeed(c);
            }
            continue;
        }
        if (c->skip) {
            discard(c, &at, &n);
            continue;
        }
        if (c->have < 2 && !gather(c, &at, &n, 2))
            continue;
        length = c->part[1] & 0x7f;
        if ((c->part[0] & 0x0f) != 9 || length > 125) {
            note("a frame with opcode %d came, which is no ping", c->part[0] & 0x0f);
            return -1;
        }
        if (!gather(c, &at, &n, 2 + length))
            continue;
        /* The mask is four zeros, which do not change the payload. */
        unsigned char frame[sizeof maskedPong];

        memcpy(frame, maskedPong, 6);
        frame[1] = (unsigned char)(0x80 | length);
        memcpy(frame + 6, c->part + 2, length);
        c->have = 0;
        if (answer(c, frame, 6 + length) < 0)
            return -1;
    }
    return 0;
}

/* Lines no longer than a part: "KEEPALIVE-OK 0.1" once, and then "PING". */
static int
linesReceived(struct client *c, unsigned char *at, ssize_t n)
{
    for (; n > 0; at++, n--) {
        if (*at != '\n') {
            if (c->have == PART) {
                note("a line is too long");
                return -1;
            }
            c->part[c->have++] = *at;
            continue;
        }
        if (c->have == 5 && !memcmp(c->part, "PING\r", 5)) {
            if (answer(c, "PONG\r\n", 6) < 0)
                return -1;
        } else if (c->state == OPENING && c->have > 9 && !memcmp(c->part, "KEEPALIVE", 9)) {
            succeed(c);
        } else {
            note("a line that is no ping: %.*s", c->have, c->part);
            return -1;
        }
        c->have = 0;
    }
    return 0;
}

static int
bytesReceived(struct client *c, unsigned char *at, ssize_t n)
{
    if (c->state == CONFIRMING) {
        if (*at != 1)
            return -1;
        if (call(c, LISTING) < 0)
            return -1;
        at++;
        n--;
    }
    if (n == HEADER_SIZE && !c->have && !c->skip && c->state == OPENED && !option.websocket && !option.lines
        && get32(at + 4) == KEEPALIVE_PROGRAM && get32(at + 12) == PING)
        return answer(c, pong, sizeof pong);
    if (option.lines)
        return linesReceived(c, at, n);
    return option.websocket ? websocketReceived(c, at, n) : libvirtReceived(c, at, n);
}

#ifdef WITH_TLS
static int
secure(struct client *c)
{
    int result = SSL_connect(c->tls), why;

    if (result == 1) {
        c->state = CONFIRMING;
        return 0;
    }
    why = SSL_get_error(c->tls, result);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}
#endif

static int
readable(struct client *c)
{
    ssize_t n;

#ifdef WITH_TLS
    if (c->state == SECURING && secure(c) < 0) {
        note("the TLS handshake failed");
        return -1;
    }
    if (c->state == SECURING)
        return 0;
    if (c->tls) {
        while ((n = SSL_read(c->tls, received, sizeof received)) > 0)
            if (bytesReceived(c, received, n) < 0)
                return -1;
        return SSL_get_error(c->tls, (int)n) == SSL_ERROR_WANT_READ ? 0 : -1;
    }
#endif
    n = recv(c->fd, received, sizeof received, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN)
            return 0;
        note(n ? strerror(errno) : "the server closed the connection");
        return -1;
    }
    return bytesReceived(c, received, n);
}

static int
connected(struct client *c)
{
    socklen_t size = sizeof(int);
    int error = 0;
    struct sockaddr_in local;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        note("connect: %s", strerror(error));
        return -1;
    }
    watch((int)(c - clients), EPOLL_CTL_MOD, EPOLLIN);
    if (option.spread) {
        size = sizeof local;
        getsockname(c->fd, (struct sockaddr *)&local, &size);
        c->interval = option.interval * (0.75 + ntohs(local.sin_port) % 1000 / 2000.0);
    }
#ifdef WITH_TLS
    if (option.tls) {
        c->tls = SSL_new(context);
        SSL_set_fd(c->tls, c->fd);
        c->state = SECURING;
        return secure(c);
    }
#endif
    if (option.tunnel)
        return enter(c);
    if (option.lines)
        return ask(c);
    return option.websocket ? upgrade(c) : call(c, LISTING);
}

static void
launch(int index, double time)
{
    struct linger reset = {1, 0};
    struct client *c = clients + index;
    int one = 1, address = option.source + index / CLIENTS_PER_ADDRESS;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket (raise the limit of open files)");
    /* Close with a reset, because sockets in TIME_WAIT would use up the local ports. */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setNoDelay(c->fd);
    if (address) {
        struct sockaddr_in local = {.sin_family = AF_INET};

        local.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)address);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&local, sizeof local) < 0)
            fail("bind");
    }
    c->started = time;
    c->interval = option.interval;
    c->state = CONNECTING;
    opening++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        note("connect: %s", strerror(errno));
        refused++;
        drop(c);
        return;
    }
    watch(index, EPOLL_CTL_ADD, EPOLLOUT);
}

static void
launchMore(double time)
{
    int allowed = option.clients;

    if (option.rate > 0 && (time - begun) * option.rate + 1 < allowed)
        allowed = (int)((time - begun) * option.rate) + 1;
    for (int i = 0; i < LAUNCH && launched < allowed && opening < option.inflight; i++)
        launch(launched++, time);
}

static void
expire(double time)
{
    int over = time - begun > option.deadline;

    for (int i = 0; i < launched && opening; i++) {
        struct client *c = clients + i;

        if (c->state == GONE || c->state == OPENED)
            continue;
        if (over || time - c->started > option.timeout) {
            note("no answer while %s",
                 c->state == CONNECTING ? "connecting" : "in the handshake");
            timedOut++;
            drop(c);
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
printSamples(const char *name, struct samples *s)
{
    if (!s->have)
        return;
    qsort(s->at, s->have, sizeof *s->at, ascending);
    printf(", \"%s\": {\"count\": %zu, \"min\": %.6f, \"p50\": %.6f, \"p99\": %.6f, "
           "\"max\": %.6f}",
           name, s->have, s->at[0], s->at[s->have / 2], s->at[s->have * 99 / 100],
           s->at[s->have - 1]);
    s->have = 0;
}

static void
printOpened(void)
{
    double seconds = lastOpened - begun;

    printf("{\"event\": \"opened\", \"clients\": %d, \"opened\": %d, \"refused\": %d, "
           "\"timedOut\": %d, \"notTried\": %d, \"lost\": %d, \"seconds\": %.4f, "
           "\"opensPerSecond\": %.1f, \"firstError\": \"%s\"}\n",
           option.clients, opened, refused, timedOut, option.clients - launched, lost,
           opened ? seconds : 0, opened ? opened / seconds : 0, firstError);
    fflush(stdout);
}

static void
obey(void)
{
    char line[256];
    ssize_t n = read(0, line, sizeof line - 1);

    if (n <= 0)
        exit(0);
    line[n] = 0;
    if (strstr(line, "mute"))
        muted = 1;
    if (strstr(line, "report")) {
        double elapsed = now() - marked, cpu = cpuTime() - markedCpu;

        printf("{\"event\": \"report\", \"seconds\": %.4f, \"roundTrips\": %zu, \"held\": %d, "
               "\"lost\": %d, \"generatorCpu\": %.4f",
               elapsed, pongLate.have, opened - lost, lost, cpu / elapsed);
        printSamples("ping", &pingLate);
        printSamples("pong", &pongLate);
        printSamples("death", &deathLate);
        printf(", \"firstError\": \"%s\"}\n", firstError);
    } else if (strstr(line, "mark") || strstr(line, "mute")) {
        pingLate.have = pongLate.have = 0;
        marked = now();
        markedCpu = cpuTime();
        printf("{\"event\": \"%s\"}\n", muted ? "muted" : "marked");
    }
    fflush(stdout);
    if (strstr(line, "quit"))
        exit(0);
}

static void
prepareTls(void)
{
#ifdef WITH_TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (option.certificate
        && (SSL_CTX_use_certificate_file(context, option.certificate, SSL_FILETYPE_PEM) != 1
            || SSL_CTX_use_PrivateKey_file(context, option.key, SSL_FILETYPE_PEM) != 1)) {
        fprintf(stderr, "load: --certificate and --key cannot be read\n");
        exit(2);
    }
#else
    fprintf(stderr, "load: built without TLS: install the headers of OpenSSL\n");
    exit(2);
#endif
}

static void
parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"host", 1, 0, 'h'},      {"port", 1, 0, 'p'},     {"clients", 1, 0, 'n'},
        {"rate", 1, 0, 'r'},      {"inflight", 1, 0, 'f'}, {"interval", 1, 0, 'i'},
        {"count", 1, 0, 'c'},     {"timeout", 1, 0, 't'},  {"deadline", 1, 0, 'd'},
        {"websocket", 0, 0, 'w'}, {"lines", 0, 0, 'l'},
        {"tunnel", 0, 0, 'u'},    {"tls", 0, 0, 's'},      {"spread", 0, 0, 'v'},
        {"key", 1, 0, 'k'},       {"certificate", 1, 0, 'e'},
        {"source", 1, 0, 'o'},    {0, 0, 0, 0},
    };
    int letter;

    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'h': option.host = optarg; break;
        case 'p': option.port = atoi(optarg); break;
        case 'n': option.clients = atoi(optarg); break;
        case 'r': option.rate = atof(optarg); break;
        case 'f': option.inflight = atoi(optarg); break;
        case 'i': option.interval = atof(optarg); break;
        case 'c': option.count = atoi(optarg); break;
        case 't': option.timeout = atof(optarg); break;
        case 'd': option.deadline = atof(optarg); break;
        case 'w': option.websocket = 1; break;
        case 'l': option.lines = 1; break;
        case 'u': option.tunnel = 1; break;
        case 's': option.tls = 1; break;
        case 'v': option.spread = 1; break;
        case 'k': option.key = optarg; break;
        case 'e': option.certificate = optarg; break;
        case 'o': option.source = atoi(optarg); break;
        default: exit(2);
        }
    }
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)option.port);
    if (!option.port || inet_pton(AF_INET, option.host, &server.sin_addr) != 1) {
        fprintf(stderr, "load: --port and an IPv4 --host are needed\n");
        exit(2);
    }
}

static void
serve(struct client *c)
{
    int result = c->state == CONNECTING ? connected(c) : c->state == GONE ? 0 : readable(c);

    if (result < 0) {
        if (c->state != OPENED)
            refused++;
        drop(c);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[512], command = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    double time, checked;
    int told = 0;

    parse(argc, argv);
    if (option.tls)
        prepareTls();
    clients = allocate((size_t)option.clients, sizeof *clients);
    putHeader(pong, 0, KEEPALIVE_PROGRAM, PONG, MESSAGE, 0, OK);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, 0, &command) < 0)
        fail("epoll");
    begun = checked = lastOpened = time = now();
    for (;;) {
        int busy = launched < option.clients && !option.rate && opening < option.inflight;
        int n = epoll_wait(poller, events, 512, busy ? 0 : told ? -1 : 1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == UINT32_MAX)
                obey();
            else
                serve(clients + events[i].data.u32);
        }
        if (told)
            continue;
        time = now();
        if (time - begun <= option.deadline)
            launchMore(time);
        if (time - checked > 0.1) {
            expire(time);
            checked = time;
        }
        if (!opening && (launched == option.clients || time - begun > option.deadline)) {
            printOpened();
            told = 1;
        }
    }
}
