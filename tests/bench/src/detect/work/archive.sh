# A backup: a tree packed, compressed, summed, unpacked elsewhere and compared, with the oldest copies deleted.
set -e
mkdir -p tree kept
n=0
while [ $n -lt 300 ]; do
    mkdir -p tree/$((n % 20))
    head -c $((n * 100 + 1)) /usr/bin/python3 >tree/$((n % 20))/$n.bin
    n=$((n + 1))
done
round=0
while :; do
    round=$((round + 1))
    tar -cf - tree | gzip -6 >kept/$round.tar.gz
    sha256sum kept/$round.tar.gz >kept/$round.sha256
    sha256sum -c --status kept/$round.sha256
    rm -rf back
    mkdir back
    tar -xzf kept/$round.tar.gz -C back
    diff -r tree back/tree
    find tree -type f -exec sha256sum {} + | sort >sums
    ls -t kept | tail -n +11 | while read -r old; do rm -f "kept/$old"; done
    echo "round $round"
done
