/*
 * The server behind a relay: answers calls and moves bulk streams faster than any relay.
 *
 * It speaks libvirt's RPC: the handshake, GET_HOSTNAME, a download that sends stream messages of
 * the largest size without end, and an upload that receives them.  The first word of each stream
 * message is its number, so that the other end detects lost and duplicate messages.
 *
 * usage: upstream PORT
 */
#define _GNU_SOURCE
#include "wire.h"

#define CALL_MAX 512       /* bytes kept of a call; the rest is skipped */
#define INPUT 65536        /* bytes read at once */
#define OUTPUT (3 * INPUT) /* fits the replies to the shortest calls that fit INPUT */

struct peer {
    uint32_t skip, have, stored, sent, chunks, chunkAt, serial, received;
    int downloading, closing;
    uint32_t watched;
    unsigned char part[CALL_MAX], replies[OUTPUT], chunkHead[HEADER_SIZE + 4];
};

static struct peer **peers;
static unsigned char input[INPUT], payload[STREAM_CHUNK - 4];
static int poller;

static void
watch(int fd, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.fd = fd};

    if (peers[fd]->watched == wanted)
        return;
    if (epoll_ctl(poller, peers[fd]->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
    peers[fd]->watched = wanted;
}

static void
forget(int fd)
{
    free(peers[fd]);
    peers[fd] = NULL;
    close(fd);
}

static void
respond(struct peer *p, const struct header *h, uint32_t type, const void *bytes, uint32_t length)
{
    unsigned char *at = p->replies + p->stored;

    at = putHeader(at, length, h->program, h->procedure, type, h->serial, OK);
    if (length)
        memcpy(at, bytes, length);
    p->stored += HEADER_SIZE + length;
}

static int
messageReceived(struct peer *p)
{
    static const unsigned char hostname[12] = {0, 0, 0, 8, 'u', 'p', 's', 't', 'r', 'e', 'a', 'm'};
    struct header h = getHeader(p->part);
    unsigned char word[8] = {0};

    if (h.program == KEEPALIVE_PROGRAM) {
        h.procedure = PONG;
        h.serial = 0;
        respond(p, &h, MESSAGE, NULL, 0);
        return 0;
    }
    if (h.type == STREAM) {
        if (h.status == CONTINUE)
            return get32(p->part + HEADER_SIZE) == p->received++ ? 0 : -1;
        p->downloading = 0;
        respond(p, &h, STREAM, NULL, 0);
        return 0;
    }
    switch (h.procedure) {
    case AUTH_LIST:
        put32(word, 1);
        respond(p, &h, REPLY, word, 8);
        return 0;
    case SUPPORTS_FEATURE:
        put32(word, 1);
        respond(p, &h, REPLY, word, 4);
        return 0;
    case GET_HOSTNAME:
        respond(p, &h, REPLY, hostname, sizeof hostname);
        return 0;
    case VOLUME_DOWNLOAD:
        p->downloading = 1;
        p->serial = h.serial;
        p->chunks = p->chunkAt = 0;
        break;
    case VOLUME_UPLOAD:
        p->received = 0;
        break;
    case CONNECT_CLOSE:
        p->closing = 1;
    }
    respond(p, &h, REPLY, NULL, 0);
    return 0;
}

static int
parse(struct peer *p, unsigned char *at, size_t n)
{
    while (n > 0) {
        uint32_t length = HEADER_SIZE, wanted = HEADER_SIZE, take;

        if (p->skip) {
            take = p->skip < n ? p->skip : (uint32_t)n;
            p->skip -= take;
            at += take;
            n -= take;
            continue;
        }
        if (p->have >= HEADER_SIZE) {
            length = get32(p->part);
            wanted = length < CALL_MAX ? length : CALL_MAX;
        }
        take = wanted - p->have < n ? wanted - p->have : (uint32_t)n;
        memcpy(p->part + p->have, at, take);
        p->have += take;
        at += take;
        n -= take;
        if (p->have < HEADER_SIZE)
            continue;
        length = get32(p->part);
        if (length < HEADER_SIZE || length > MESSAGE_MAX)
            return -1;
        if (p->have < (length < CALL_MAX ? length : CALL_MAX))
            continue;
        if (messageReceived(p) < 0)
            return -1;
        p->skip = length - p->have;
        p->have = 0;
    }
    return 0;
}

/* Send replies between stream messages, and stream messages until the socket's buffer is full. */
static int
transmit(int fd)
{
    struct peer *p = peers[fd];
    ssize_t n;

    for (;;) {
        if (p->stored && !p->chunkAt) {
            n = send(fd, p->replies + p->sent, p->stored - p->sent, MSG_NOSIGNAL);
            if (n < 0)
                break;
            p->sent += (uint32_t)n;
            if (p->sent < p->stored)
                continue;
            p->sent = p->stored = 0;
        }
        if (p->closing && !p->chunkAt)
            return -1;
        if (!p->downloading && !p->chunkAt) {
            watch(fd, EPOLLIN);
            return 0;
        }
        if (p->chunkAt < sizeof p->chunkHead) {
            struct iovec parts[2];
            struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

            if (!p->chunkAt) {
                unsigned char *end = putHeader(p->chunkHead, STREAM_CHUNK, REMOTE_PROGRAM,
                                               VOLUME_DOWNLOAD, STREAM, p->serial, CONTINUE);

                put32(end, p->chunks);
            }
            parts[0].iov_base = p->chunkHead + p->chunkAt;
            parts[0].iov_len = sizeof p->chunkHead - p->chunkAt;
            parts[1].iov_base = payload;
            parts[1].iov_len = sizeof payload;
            n = sendmsg(fd, &message, MSG_NOSIGNAL);
        } else {
            uint32_t done = p->chunkAt - (uint32_t)sizeof p->chunkHead;

            n = send(fd, payload + done, sizeof payload - done, MSG_NOSIGNAL);
        }
        if (n < 0)
            break;
        p->chunkAt += (uint32_t)n;
        if (p->chunkAt == sizeof p->chunkHead + sizeof payload) {
            p->chunkAt = 0;
            p->chunks++;
        }
    }
    if (errno != EAGAIN)
        return -1;
    watch(fd, p->stored > OUTPUT / 3 ? EPOLLOUT : EPOLLIN | EPOLLOUT);
    return 0;
}

static int
receive(int fd)
{
    struct peer *p = peers[fd];
    ssize_t n;

    /* The replies to all calls in one read fit the buffer for replies. */
    if (p->stored > OUTPUT / 3)
        return 0;
    n = recv(fd, input, sizeof input, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0 || parse(p, input, (size_t)n) < 0)
        return -1;
    return transmit(fd);
}

static void
admit(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setNoDelay(fd);
        peers[fd] = allocate(1, sizeof *peers[fd]);
        watch(fd, EPOLLIN);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[256], event = {.events = EPOLLIN};
    struct rlimit files;
    int listener;

    if (argc != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    peers = allocate(files.rlim_cur, sizeof *peers);
    listener = listenOn((uint16_t)atoi(argv[1]), 4096);
    poller = epoll_create1(EPOLL_CLOEXEC);
    event.data.fd = listener;
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, result = 0;

            if (fd == listener) {
                admit(listener);
                continue;
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                result = receive(fd);
            if (result == 0 && events[i].events & EPOLLOUT)
                result = transmit(fd);
            if (result < 0)
                forget(fd);
        }
    }
}
