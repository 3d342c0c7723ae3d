/* The first thing it does is to say when it ran: CLOCK_REALTIME, which no namespace shifts. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char line[40];
    int n = snprintf(line, sizeof line, "%lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    return write(1, line, n) == n ? 0 : 1;
}
