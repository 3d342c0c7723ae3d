/* A call again and again. Prints nanoseconds per call, a batch a line; the first batch warms up and is not printed.
   Arguments: getppid|udp|tcp CALLS BATCHES [ADDRESS PORT]. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in to;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t getppids(int calls) {
    int64_t begun = now();
    for (int i = 0; i < calls; i++)
        syscall(SYS_getppid);
    return now() - begun;
}

/* One socket: what is measured is the call, and no packet is made. */
static int64_t udp(int calls) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0)
        fail("socket");
    int64_t begun = now();
    for (int i = 0; i < calls; i++)
        if (connect(s, (struct sockaddr *)&to, sizeof to))
            fail("connect");
    int64_t took = now() - begun;
    close(s);
    return took;
}

/* To the end of the handshake. Reset afterwards, so that no port waits. */
static int64_t tcp(int calls) {
    struct linger reset = {1, 0};
    int64_t took = 0;
    for (int i = 0; i < calls; i++) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        if (s < 0 || setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset))
            fail("socket");
        int64_t begun = now();
        if (connect(s, (struct sockaddr *)&to, sizeof to))
            fail("connect");
        took += now() - begun;
        close(s);
    }
    return took;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    int calls = atoi(argv[2]), batches = atoi(argv[3]);
    int64_t (*batch)(int) = !strcmp(argv[1], "getppid") ? getppids : !strcmp(argv[1], "udp") ? udp : tcp;
    if (batch != getppids) {
        if (argc < 6 || inet_pton(AF_INET, argv[4], &to.sin_addr) != 1)
            return 2;
        to.sin_family = AF_INET;
        to.sin_port = htons(atoi(argv[5]));
    }
    if (calls < 1)
        return 2;
    batch(calls);
    for (int i = 0; i < batches; i++)
        printf("%lld\n", (long long)(batch(calls) / calls));
    return 0;
}
