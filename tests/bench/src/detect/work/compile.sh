# A compiler on many files of some size, one after the other, and what comes out of it run.
set -e
export TMPDIR=$PWD/tmp
mkdir -p tmp
n=0
while [ $n -lt 40 ]; do
    {
        printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
        m=0
        while [ $m -lt 40 ]; do
            printf 'int f%s_%s(int x) { int s = 0; for (int i = 0; i < x; i++) s += i * %s %% (i + %s); return s; }\n' $n $m $m $((m + 1))
            m=$((m + 1))
        done
    } >f$n.c
    n=$((n + 1))
done
printf '#include <stdio.h>\nint f0_3(int);\nint main(void) { return f0_3(100) == 0; }\n' >main.c
round=0
while :; do
    rm -f ./*.o prog
    for file in *.c; do
        cc -O2 -Wall -c "$file" -o "${file%.c}.o"
    done
    cc -o prog ./*.o
    ./prog
    strip prog
    round=$((round + 1))
    echo "round $round"
done
