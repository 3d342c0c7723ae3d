# Files looked for, read, sorted and packed, with pipes and small programs one after another.
set -e
round=0
while :; do
    find /usr/share/doc /usr/lib/python3 -type f 2>/dev/null | sort >list
    head -2000 list | tr '\n' '\0' | xargs -0 cat 2>/dev/null | tr -cs 'A-Za-z' '\n' | sort | uniq -c | sort -rn | head -20 >words
    grep -rl import /usr/lib/python3 2>/dev/null | head -100 >found || true
    head -200 list | while read -r file; do
        echo "$(basename "$file") $(wc -c <"$file")"
    done >sizes
    tar -cf - -T found 2>/dev/null | tar -tf - | awk '{ print length($0) }' | sort -n | tail -1 >longest
    test -s words && test -s sizes
    round=$((round + 1))
    echo "round $round"
done
