/*
 * Shared by the C programs: libvirt's frame header, the procedures that the benchmarks call, and a
 * clock.
 */
#ifndef KAPROTO_BENCHMARK_WIRE_H
#define KAPROTO_BENCHMARK_WIRE_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEADER_SIZE 28
#define MESSAGE_MAX 33554436u
#define REMOTE_PROGRAM 0x20008086u
#define KEEPALIVE_PROGRAM 0x6b656570u
#define TUNNEL_PROGRAM 0x6b617475u
#define FEATURE_KEEPALIVE 10
#define STREAM_CHUNK 262120u

enum procedure {
    CONNECT_OPEN = 1,
    CONNECT_CLOSE = 2,
    GET_HOSTNAME = 59,
    SUPPORTS_FEATURE = 60,
    AUTH_LIST = 66,
    VOLUME_UPLOAD = 208,
    VOLUME_DOWNLOAD = 209,
};
enum keepaliveProcedure { PING = 1, PONG = 2 };
enum messageType { CALL = 0, REPLY = 1, MESSAGE = 2, STREAM = 3 };
enum messageStatus { OK = 0, ERROR = 1, CONTINUE = 2 };

struct header {
    uint32_t length, program, version, procedure, type, serial, status;
};

static inline uint32_t
get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline unsigned char *
put32(unsigned char *at, uint32_t value)
{
    at[0] = (unsigned char)(value >> 24);
    at[1] = (unsigned char)(value >> 16);
    at[2] = (unsigned char)(value >> 8);
    at[3] = (unsigned char)value;
    return at + 4;
}

static inline unsigned char *
putHeader(unsigned char *at, uint32_t payload, uint32_t program, uint32_t procedure,
          uint32_t type, uint32_t serial, uint32_t status)
{
    at = put32(at, HEADER_SIZE + payload);
    at = put32(at, program);
    at = put32(at, 1);
    at = put32(at, procedure);
    at = put32(at, type);
    at = put32(at, serial);
    return put32(at, status);
}

static inline struct header
getHeader(const unsigned char *at)
{
    struct header h = {get32(at),      get32(at + 4),  get32(at + 8), get32(at + 12),
                       get32(at + 16), get32(at + 20), get32(at + 24)};
    return h;
}

/* Write a CONNECT_OPEN call for "test:///default", an optional string in XDR, without flags. */
static inline unsigned char *
putOpen(unsigned char *at, uint32_t serial)
{
    static const char name[16] = "test:///default";

    at = putHeader(at, 28, REMOTE_PROGRAM, CONNECT_OPEN, CALL, serial, OK);
    at = put32(at, 1);
    at = put32(at, 15);
    memcpy(at, name, sizeof name);
    return put32(at + sizeof name, 0);
}

static inline double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static inline void
setNonBlocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        fail("fcntl");
}

static inline void
setNoDelay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void *
allocate(size_t count, size_t size)
{
    void *block = calloc(count, size);

    if (!block)
        fail("calloc");
    return block;
}

/* Make a listening socket on the loopback address, on the given port (0: any). */
static inline int
listenOn(uint16_t port, int backlog)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (listen(fd, backlog) < 0)
        fail("listen");
    return fd;
}

#endif
