# A repository, cloned, built and tested again and again.
set -e
export HOME=$PWD/home GIT_CONFIG_NOSYSTEM=1
mkdir -p home
git config --global user.email agent@example.org
git config --global user.name agent
git config --global init.defaultBranch main
git init -q first
cd first
n=0
while [ $n -lt 60 ]; do
    printf '#include <stdio.h>\nint f%s(int n) { return printf("%%d\\n", n * %s); }\n' $n $n >f$n.c
    n=$((n + 1))
done
printf '#include <stdio.h>\nint main(void) { puts("it works"); return 0; }\n' >main.c
printf 'prog: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tcc -o $@ $^\ntest: prog\n\t./prog | grep -q works\n.PHONY: test\n' >Makefile
git add .
git commit -qm 'All of it'
cd ..
git clone -q --bare first origin.git
round=0
while :; do
    rm -rf copy
    git clone -q origin.git copy
    make -s -C copy -j2
    make -s -C copy test
    git -C copy log --oneline | grep -q All
    round=$((round + 1))
    echo "round $round"
done
