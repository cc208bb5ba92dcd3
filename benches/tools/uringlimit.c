// uringlimit: what this machine can move with io_uring on the receiving side, unverified. The counterpart of netlimit:
// N senders with sendfile, N connections over loopback into one file, but RINGS threads receive, each with one ring.
//
//   cc -O2 -o uringlimit uringlimit.c -lpthread
//   ./uringlimit IN OUT SIZE_MIB STREAMS RECEIVE RINGS CHUNK_KIB
//   RECEIVE: write    a chunk into a buffer, then by a linked request from there into the file
//            mmappop  a chunk into the mapping, whose pages are taken by the thread before it is asked for
//   e.g. ./uringlimit /dev/shm/in /dev/shm/out 2048 8 write 2 512
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define MAX_STREAMS 256
#define ENTRIES 512 // two requests for each stream

static size_t size, chunk;
static int n_streams, n_rings, in_fd, out_fd, port, listener, is_mapped;
static char *mapping;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static size_t begin_of(int stream) { return size / n_streams * stream; }
static size_t end_of(int stream) { return stream + 1 == n_streams ? size : begin_of(stream + 1); }

static void *sender(void *unused) {
    (void)unused;
    int s = accept(listener, 0, 0);
    unsigned char id;
    if (s < 0 || read(s, &id, 1) != 1) die("accept");
    off_t at = begin_of(id);
    while ((size_t)at < end_of(id)) {
        size_t n = end_of(id) - at;
        if (sendfile(s, in_fd, &at, n < (1 << 20) ? n : 1 << 20) <= 0) die("sendfile");
    }
    close(s);
    return 0;
}

struct ring {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned tail, to_submit;
};

static void ring_open(struct ring *ring) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    ring->fd = syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (ring->fd < 0) die("io_uring_setup");
    size_t sq_len = p.sq_off.array + p.sq_entries * 4, cq_len = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    size_t len = sq_len > cq_len ? sq_len : cq_len; // IORING_FEAT_SINGLE_MMAP
    char *rings = mmap(0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
    ring->sqes = mmap(0, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      ring->fd, IORING_OFF_SQES);
    if (rings == MAP_FAILED || (void *)ring->sqes == MAP_FAILED) die("mmap of the ring");
    ring->sq_tail = (unsigned *)(rings + p.sq_off.tail);
    ring->sq_mask = (unsigned *)(rings + p.sq_off.ring_mask);
    ring->sq_array = (unsigned *)(rings + p.sq_off.array);
    ring->cq_head = (unsigned *)(rings + p.cq_off.head);
    ring->cq_tail = (unsigned *)(rings + p.cq_off.tail);
    ring->cq_mask = (unsigned *)(rings + p.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    ring->tail = *ring->sq_tail;
    ring->to_submit = 0;
}

static struct io_uring_sqe *ring_next(struct ring *ring) {
    unsigned at = ring->tail++ & *ring->sq_mask;
    ring->sq_array[at] = at;
    ring->to_submit++;
    memset(&ring->sqes[at], 0, sizeof ring->sqes[at]);
    return &ring->sqes[at];
}

struct stream {
    int socket;
    size_t at, end, asked;
    char *buffer;
};

// Asks for the next chunk of a stream: one request, or two of which the second waits for the first.
static void ask(struct ring *ring, struct stream *streams, int id) {
    struct stream *stream = &streams[id];
    size_t left = stream->end - stream->at;
    stream->asked = left < chunk ? left : chunk;
    char *into = stream->buffer;
    if (is_mapped) {
        into = mapping + stream->at;
        char *page = (char *)((uintptr_t)into & ~4095UL);
        if (madvise(page, into + stream->asked - page, MADV_POPULATE_WRITE)) die("madvise");
    }
    struct io_uring_sqe *receive = ring_next(ring);
    receive->opcode = IORING_OP_RECV;
    receive->fd = stream->socket;
    receive->addr = (uintptr_t)into;
    receive->len = stream->asked;
    receive->msg_flags = MSG_WAITALL; // a short receipt breaks the link
    receive->user_data = id * 2;
    if (is_mapped) return;
    receive->flags = IOSQE_IO_LINK;
    struct io_uring_sqe *write = ring_next(ring);
    write->opcode = IORING_OP_WRITE;
    write->fd = out_fd;
    write->addr = (uintptr_t)into;
    write->len = stream->asked;
    write->off = stream->at;
    write->user_data = id * 2 + 1;
}

static void *receiver(void *number) {
    int first = (int)(intptr_t)number, n_open = 0;
    static struct stream streams[MAX_STREAMS];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct ring ring;
    ring_open(&ring);
    for (int id = first; id < n_streams; id += n_rings, n_open++) {
        unsigned char greeting = id;
        struct stream *stream = &streams[id];
        *stream = (struct stream){socket(AF_INET, SOCK_STREAM, 0), begin_of(id), end_of(id), 0, malloc(chunk)};
        if (connect(stream->socket, (void *)&address, sizeof address)) die("connect");
        if (write(stream->socket, &greeting, 1) != 1) die("write");
        ask(&ring, streams, id);
    }
    while (n_open > 0) {
        atomic_store_explicit((_Atomic unsigned *)ring.sq_tail, ring.tail, memory_order_release);
        int taken = syscall(SYS_io_uring_enter, ring.fd, ring.to_submit, 1, IORING_ENTER_GETEVENTS, 0, 0);
        if (taken < 0) die("io_uring_enter");
        ring.to_submit -= taken;
        unsigned head = *ring.cq_head;
        unsigned tail = atomic_load_explicit((_Atomic unsigned *)ring.cq_tail, memory_order_acquire);
        for (; head != tail; head++) {
            struct io_uring_cqe *done = &ring.cqes[head & *ring.cq_mask];
            int id = done->user_data / 2, is_write = done->user_data % 2;
            struct stream *stream = &streams[id];
            if (done->res != (int)stream->asked) {
                fprintf(stderr, "stream %d: %s gave %d of %zu\n", id, is_write ? "write" : "recv", done->res, stream->asked);
                exit(1);
            }
            if (!is_write && !is_mapped) continue; // its write follows
            stream->at += stream->asked;
            if (stream->at < stream->end) ask(&ring, streams, id);
            else n_open--, close(stream->socket);
        }
        atomic_store_explicit((_Atomic unsigned *)ring.cq_head, head, memory_order_release);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "usage: uringlimit IN OUT SIZE_MIB STREAMS write|mmappop RINGS CHUNK_KIB\n"), 2;
    size = (size_t)atol(argv[3]) << 20;
    n_streams = atoi(argv[4]);
    is_mapped = !strcmp(argv[5], "mmappop");
    n_rings = atoi(argv[6]);
    chunk = (size_t)atol(argv[7]) << 10;
    if (size == 0 || n_streams < 1 || n_streams >= MAX_STREAMS || n_rings < 1 || n_rings > n_streams || chunk == 0)
        return fprintf(stderr, "uringlimit: a number is out of range\n"), 2;
    in_fd = open(argv[1], O_RDONLY);
    if (in_fd < 0) die(argv[1]);
    unlink(argv[2]);
    out_fd = open(argv[2], O_RDWR | O_CREAT, 0644);
    if (out_fd < 0 || ftruncate(out_fd, size)) die(argv[2]);
    if (is_mapped && (mapping = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, out_fd, 0)) == MAP_FAILED) die("mmap");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, len) || listen(listener, 512)) die("listen");
    getsockname(listener, (void *)&address, &len);
    port = ntohs(address.sin_port);
    pthread_t senders[MAX_STREAMS], receivers[MAX_STREAMS];
    for (int i = 0; i < n_streams; i++) pthread_create(&senders[i], 0, sender, 0);
    for (int i = 0; i < n_rings; i++) pthread_create(&receivers[i], 0, receiver, (void *)(intptr_t)i);
    for (int i = 0; i < n_rings; i++) pthread_join(receivers[i], 0);
    for (int i = 0; i < n_streams; i++) pthread_join(senders[i], 0);
    return 0;
}
