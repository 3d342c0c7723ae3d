# A task as a job: the same chain of steps as agent.py, with a checkpoint when it must make room.
read -r params
number() { printf '%s' "$params" | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }
steps=$(number steps) value=$(number seed) pause=$(number pause_ms) step=0 stop=
hold=$(printf '%s' "$params" | sed -n 's/.*"hold":\([0-9]*\).*/\1/p')
[ -s "$AION_CHECKPOINT_DIR/state" ] && read -r step value <"$AION_CHECKPOINT_DIR/state"
trap 'stop=1' TERM
pause=$(printf '0.%03d' "$pause")
while [ "$step" -lt "$steps" ]; do
    value=$(((value * 48271 + step) % 2147483647))
    step=$((step + 1))
    # As there: from step `hold` on nothing goes on until the file `go` is there.
    while [ "${hold:-0}" -gt 0 ] && [ "$step" -ge "$hold" ] && [ -z "$stop" ] && [ ! -e /workspace/go ]; do
        : >/workspace/held
        sleep 0.01
    done
    sleep "$pause"
    if [ "$stop" ]; then
        echo "$step $value" >"$AION_CHECKPOINT_DIR/state"
        exit 143
    fi
done
printf '{"value": %s}' "$value" >"$AION_RESULT"
