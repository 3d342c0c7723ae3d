/* Asks the agent's resolver for addresses, one name after the other, and prints how many nanoseconds each answer took.
   Arguments: PATTERN NAMES QUESTIONS GAP_MS; question I is for the name PATTERN makes of I modulo NAMES.
   Without GAP_MS it asks again for what failed, prints "ready" once all were answered, and stays. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pause_ms(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* The question for the name's address; its length. */
static int question(unsigned char *to, unsigned id, const char *name) {
    unsigned char head[12] = {id >> 8, id, 1, 0, 0, 1}, tail[5] = {0, 0, 1, 0, 1};
    int at = 12;
    memcpy(to, head, sizeof head);
    for (const char *label = name; *label;) {
        int length = strcspn(label, ".");
        to[at++] = length;
        memcpy(to + at, label, length);
        at += length;
        label += length + (label[length] == '.');
    }
    memcpy(to + at, tail, sizeof tail);
    return at + sizeof tail;
}

/* Nanoseconds until the answer with an address; -1 without one. */
static int64_t ask(int s, unsigned id, const char *name) {
    unsigned char bytes[1500];
    int length = question(bytes, id, name);
    int64_t begun = now();
    if (send(s, bytes, length, 0) != length)
        return -1;
    for (;;) {
        int got = recv(s, bytes, sizeof bytes, 0);
        if (got < 12)
            return -1;
        if (bytes[0] == (id >> 8 & 255) && bytes[1] == (id & 255))
            return (bytes[3] & 15) == 0 && bytes[7] > 0 ? now() - begun : -1;
    }
}

int main(int argc, char **argv) {
    if (argc < 4 || strlen(argv[1]) > 200 || atoi(argv[2]) < 1)
        return 2;
    int names = atoi(argv[2]), questions = atoi(argv[3]), stays = argc < 5, failed = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(INADDR_LOOPBACK + 52)}};
    struct timeval patience = {3, 0};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(s, (struct sockaddr *)&to, sizeof to)) {
        perror("the resolver");
        return 1;
    }
    for (int i = 0; i < questions; i++) {
        char name[256];
        snprintf(name, sizeof name, argv[1], i % names);
        int64_t took = ask(s, i + 1, name);
        for (int again = 0; stays && took < 0 && again < 100; again++) {
            pause_ms(200);
            took = ask(s, i + 1 + (again + 1) * 1000, name);
        }
        if (took < 0) {
            fprintf(stderr, "no address of %s\n", name);
            failed = 1;
        } else if (!stays) {
            printf("%lld\n", (long long)took);
            pause_ms(atoi(argv[4]));
        }
    }
    if (stays && !failed) {
        puts("ready");
        fflush(stdout);
        for (;;)
            pause();
    }
    return failed;
}
