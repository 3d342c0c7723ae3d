# Packages of a mirror, installed into an empty folder with an empty cache again and again, and used.
set -e
export HOME=$PWD npm_config_update_notifier=false
round=0
while :; do
    rm -rf app cache
    mkdir app
    cd app
    printf '{"name": "app", "version": "1.0.0", "dependencies": {"pack-0": "^1.0.0"}}' >package.json
    npm install --registry "$REGISTRY" --cache ../cache --no-audit --no-fund --loglevel error
    node -e 'if (require("pack-0")() !== 40) process.exit(1)'
    ./node_modules/.bin/pack-1 | grep -q 'I am pack-1'
    npm ls --all >/dev/null
    cd ..
    round=$((round + 1))
    echo "round $round"
done
