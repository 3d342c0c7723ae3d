# A browser without a window on pages of its own, each with script and style.
set -e
export HOME=$PWD
# The sandbox has an /etc of its own.
printf '<?xml version="1.0"?><fontconfig><dir>/usr/share/fonts</dir><cachedir>%s</cachedir></fontconfig>' "$PWD/fonts" >fonts.conf
export FONTCONFIG_FILE="$PWD/fonts.conf"
round=0
while :; do
    round=$((round + 1))
    printf '<!doctype html><title>%s</title><style>p { color: green }</style><p id=p>not yet</p><script>
let s = 0; for (let i = 0; i < 1e6; i++) s += i %% 7; document.getElementById("p").textContent = "page %s: " + s;
</script>' "$round" "$round" >page.html
    "$BROWSER" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-breakpad --disable-crash-reporter \
        --no-first-run --disable-background-networking --disable-component-update --user-data-dir="$PWD/profile" --dump-dom "file://$PWD/page.html" >dom 2>said || { cat said; exit 1; }
    grep -q "page $round: " dom || { cat said dom; exit 1; }
    echo "round $round"
done
