/* Opens connections and sends a byte on each of them again and again; meanwhile asks for new ones on another port. Prints "ready", and
   when the first new one is refused, "refused NS": CLOCK_REALTIME, which no namespace shifts.
   Arguments: ADDRESS PORT CONNECTIONS OTHER_PORT. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Between two requests for a new connection this many bytes are sent; then there is a pause, for the others on this machine. */
enum { PART = 50, PAUSE_NS = 2000000 };

static struct linger reset = {1, 0};

static int connection(struct sockaddr_in *to, int flags) {
    int s = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset))
        return -1;
    if (!connect(s, (struct sockaddr *)to, sizeof *to) || errno == EINPROGRESS)
        return s;
    int why = errno;
    close(s);
    errno = why;
    return -1;
}

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET}, other;
    if (argc < 5 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        return 2;
    other = to;
    to.sin_port = htons(atoi(argv[2]));
    other.sin_port = htons(atoi(argv[4]));
    int count = atoi(argv[3]), told = 0;
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int *open = calloc(count, sizeof *open);
    for (int i = 0; i < count; i++)
        if ((open[i] = connection(&to, 0)) < 0) {
            perror("connect");
            return 1;
        }
    puts("ready");
    fflush(stdout);
    struct timespec pause = {0, PAUSE_NS};
    for (;;)
        for (int i = 0; i < count; i++) {
            /* One that is cut takes bytes until its buffer is full. */
            send(open[i], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (i % PART)
                continue;
            int s = connection(&other, SOCK_NONBLOCK);
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            if (s >= 0) {
                close(s);
            } else if (errno == EPERM && !told) {
                printf("refused %lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
                fflush(stdout);
                told = 1;
            }
            nanosleep(&pause, NULL);
        }
}
