/*
 * The floor: the least that a keepalive server can do, as one epoll loop and one timer wheel.
 *
 * It answers the handshake of libvirt's RPC (authentication list, keepalive feature, open), and any
 * other call with an empty reply.  It pings every peer that has been silent for the interval.  A
 * received message only sets its peer's time stamp; the wheel reads that when the peer is due.
 *
 * usage: floor PORT INTERVAL COUNT
 */
#define _GNU_SOURCE
#include "wire.h"

#define SLOT 0.010

struct peer {
    double heard;
    uint32_t skip;
    int unanswered, have, slot, before, after;
    unsigned char head[HEADER_SIZE + 4];
};

static struct peer *peers;
static int *slots, slotCount;
static double interval;
static int count, poller;
static unsigned char ping[HEADER_SIZE], received[65536];

static void
schedule(int fd, double due)
{
    struct peer *p = peers + fd;

    p->slot = (int)((long long)(due / SLOT + 1) % slotCount);
    p->before = -1;
    p->after = slots[p->slot];
    if (p->after >= 0)
        peers[p->after].before = fd;
    slots[p->slot] = fd;
}

static void
forget(int fd)
{
    struct peer *p = peers + fd;

    if (p->slot >= 0) {
        if (p->before >= 0)
            peers[p->before].after = p->after;
        else
            slots[p->slot] = p->after;
        if (p->after >= 0)
            peers[p->after].before = p->before;
    }
    close(fd);
}

/* Check the peers of one slot: ping or close those that are due, and schedule the others again. */
static void
turn(int slot, double time)
{
    int fd = slots[slot], after;

    slots[slot] = -1;
    for (; fd >= 0; fd = after) {
        struct peer *p = peers + fd;
        double due = p->heard + interval * (1 + p->unanswered);

        after = p->after;
        p->slot = -1;
        if (time < due) {
            schedule(fd, due);
        } else if (p->unanswered == count) {
            close(fd);
        } else {
            p->unanswered++;
            if (send(fd, ping, sizeof ping, MSG_NOSIGNAL) != sizeof ping)
                close(fd);
            else
                schedule(fd, due + interval > time ? due + interval : time);
        }
    }
}

static int
answer(int fd, const unsigned char *head, double time)
{
    struct header h = getHeader(head);
    unsigned char reply[HEADER_SIZE + 8], *end = reply;
    uint32_t payload = 0;

    if (h.program == KEEPALIVE_PROGRAM) {
        if (h.procedure != PING)
            return 0;
        end = putHeader(reply, 0, KEEPALIVE_PROGRAM, PONG, MESSAGE, 0, OK);
    } else {
        if (h.procedure == AUTH_LIST)
            payload = 8;
        else if (h.procedure == SUPPORTS_FEATURE)
            payload = 4;
        end = putHeader(reply, payload, h.program, h.procedure, REPLY, h.serial, OK);
        if (payload == 8)
            end = put32(put32(end, 1), 0);
        else if (payload == 4)
            end = put32(end, get32(head + HEADER_SIZE) == FEATURE_KEEPALIVE);
        if (h.procedure == SUPPORTS_FEATURE && peers[fd].slot < 0)
            schedule(fd, time + interval);
    }
    return send(fd, reply, (size_t)(end - reply), MSG_NOSIGNAL) == end - reply ? 0 : -1;
}

/* Handle what one peer has sent.  Only the header and one word are kept; the rest is skipped. */
static int
receive(int fd, double time)
{
    struct peer *p = peers + fd;
    ssize_t n = recv(fd, received, sizeof received, 0);
    unsigned char *at = received;

    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    p->heard = time;
    p->unanswered = 0;
    if (n == HEADER_SIZE && !p->have && !p->skip && get32(at + 4) == KEEPALIVE_PROGRAM
        && get32(at + 12) == PONG)
        return 0;
    while (n > 0) {
        uint32_t length, wanted, take;

        if (p->skip) {
            take = p->skip < (uint32_t)n ? p->skip : (uint32_t)n;
            p->skip -= take;
            at += take;
            n -= take;
            continue;
        }
        wanted = HEADER_SIZE;
        if (p->have >= HEADER_SIZE && get32(p->head) >= HEADER_SIZE + 4)
            wanted += 4;
        take = wanted - (uint32_t)p->have;
        if (take > (uint32_t)n)
            take = (uint32_t)n;
        memcpy(p->head + p->have, at, take);
        p->have += (int)take;
        at += take;
        n -= take;
        if (p->have < HEADER_SIZE)
            continue;
        length = get32(p->head);
        if (length < HEADER_SIZE || length > MESSAGE_MAX)
            return -1;
        if ((uint32_t)p->have < HEADER_SIZE + 4 && length >= HEADER_SIZE + 4)
            continue;
        if (answer(fd, p->head, time) < 0)
            return -1;
        p->skip = length - (uint32_t)p->have;
        p->have = 0;
    }
    return 0;
}

static void
admit(int listener, double time)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        memset(peers + fd, 0, sizeof *peers);
        peers[fd].slot = -1;
        peers[fd].heard = time;
        setNoDelay(fd);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("epoll_ctl");
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[512], event = {.events = EPOLLIN};
    struct rlimit files;
    long long turned;
    int listener;

    if (argc != 4) {
        fprintf(stderr, "usage: floor PORT INTERVAL COUNT\n");
        return 2;
    }
    interval = atof(argv[2]);
    count = atoi(argv[3]);
    getrlimit(RLIMIT_NOFILE, &files);
    peers = allocate(files.rlim_cur, sizeof *peers);
    slotCount = (int)(interval / SLOT) + 3;
    slots = allocate((size_t)slotCount, sizeof *slots);
    for (int i = 0; i < slotCount; i++)
        slots[i] = -1;
    putHeader(ping, 0, KEEPALIVE_PROGRAM, PING, MESSAGE, 0, OK);
    listener = listenOn((uint16_t)atoi(argv[1]), 4096);
    poller = epoll_create1(EPOLL_CLOEXEC);
    event.data.fd = listener;
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    turned = (long long)(now() / SLOT);
    for (;;) {
        double time = now(), next = (double)(turned + 1) * SLOT;
        int n = epoll_wait(poller, events, 512, time < next ? (int)((next - time) * 1000) + 1 : 0);

        time = now();
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                admit(listener, time);
            else if (receive(events[i].data.fd, time) < 0)
                forget(events[i].data.fd);
        }
        for (; (double)(turned + 1) * SLOT <= time; turned++)
            turn((int)((turned + 1) % slotCount), time);
    }
}
