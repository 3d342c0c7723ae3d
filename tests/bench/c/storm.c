/* Events: programs that are executed and end, and connections (of a UDP socket, to sixteen addresses in turn). Prints how many
   nanoseconds they took. Arguments: PROGRAMS CONNECTS ADDRESS PORT PROGRAM. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    struct sockaddr_in first = {.sin_family = AF_INET};
    if (argc < 6 || inet_pton(AF_INET, argv[3], &first.sin_addr) != 1)
        return 2;
    first.sin_port = htons(atoi(argv[4]));
    int programs = atoi(argv[1]), connects = atoi(argv[2]);
    char *words[] = {argv[5], NULL}, *env[] = {NULL};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    int64_t begun = now();
    for (int i = 0; i < programs; i++) {
        int status, pid = fork();
        if (pid == 0) {
            execve(words[0], words, env);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
            fprintf(stderr, "%s does not run\n", words[0]);
            return 1;
        }
    }
    for (int i = 0; i < connects; i++) {
        struct sockaddr_in to = first;
        to.sin_addr.s_addr = htonl(ntohl(first.sin_addr.s_addr) + i % 16);
        if (connect(s, (struct sockaddr *)&to, sizeof to)) {
            perror("connect");
            return 1;
        }
    }
    printf("%lld\n", (long long)(now() - begun));
    return 0;
}
