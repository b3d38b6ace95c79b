#!/usr/bin/env bash
# Run one jaxguard job with several processes on this machine.
#
#   launch/local.sh --run ID [options] -- train configs/NAME.py [overrides]
#
#   --run ID        run folder OUT/ID; repeat the command to resume the run
#   --out DIR       folder of the runs (runs)
#   --processes N   number of processes (2)
#   --devices N     CPU devices per process (default: the accelerators that the process finds)
#   --port N        port of process 0 (default: a free one)
#   --attempts N    largest number of starts, if processes crash or are killed (1)
#   --dry-run       print the commands; run nothing
#
# Each process logs to OUT/ID/launch/process-N.log. PYTHON sets the interpreter (python3). SIGTERM or Ctrl-C saves a
# checkpoint and exits with code 75. Exit code: 0, or that of the first process that failed.

set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=shared.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/shared.sh"

processes=2 devices='' port='' attempts=1
values=(run out processes devices port attempts)
parse "$@"
place_run
whole --processes "$processes"
whole --attempts "$attempts"
[[ -z $devices ]] || whole --devices "$devices"
[[ -z $port ]] || whole --port "$port"
logs=$out/$run/launch
checked here

# Find a port that no program listens on.
free_port() {
    local candidate
    for _ in {1..50}; do
        candidate=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
    done
    printf '%s' "$candidate"
}

# process N: set the array `command` to the command line of process N.
process() {
    command=(env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$at" "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1")
    if [[ $devices ]]; then
        local flags="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
        command+=(JAX_PLATFORMS=cpu "XLA_FLAGS=${flags# }")
    fi
    command+=("${PYTHON:-python3}" -m jaxguard "${words[@]}")
}

# Ask the processes to save and stop; kill them on the second signal.
# shellcheck disable=SC2329  # the trap calls it
stop() {
    kill "$([[ $stopping ]] && echo -KILL || echo -TERM)" "${pids[@]}" 2>/dev/null
    stopping=yes interrupted=yes
}

# Start all processes, wait for all, and return the code of the first that failed.
attempt() {
    local number code=0 ended left waited
    pids=() interrupted='' at=${port:-$(free_port)}
    for ((number = 0; number < processes; number++)); do
        process "$number"
        "${command[@]}" >>"$logs/process-$number.log" 2>&1 &
        pids+=($!)
    done
    trap 'stop' INT TERM
    for ((left = processes; left > 0 && code == 0; )); do
        wait -n
        ended=$?
        if [[ $interrupted ]]; then # interrupted by a signal to this shell; no process has ended
            interrupted=''
            continue
        fi
        left=$((left - 1)) code=$ended
    done
    if [[ $code -ne 0 ]]; then
        # After a stop (75) the other processes are saving; after a crash they would wait for the dead one.
        for ((waited = 0; waited < (code == 75 ? 120 : 10); waited++)); do
            [[ $(jobs -rp) ]] || break
            sleep 1
        done
        kill -KILL "${pids[@]}" 2>/dev/null
    fi
    wait
    trap - INT TERM
    return "$code"
}

if [[ $dry_run ]]; then
    at=${port:-PORT}
    printf 'mkdir -p %s\n' "$(quoted "$logs")"
    for ((number = 0; number < processes; number++)); do
        process "$number"
        printf '%s >>%s 2>&1 &\n' "$(quoted "${command[@]}")" "$(quoted "$logs/process-$number.log")"
    done
    exit 0
fi
mkdir -p "$logs" || die "cannot make $logs"
say "logs: $logs/process-*.log"
stopping=''
for ((tried = 1; tried <= attempts; tried++)); do
    attempt
    code=$?
    [[ $code -eq 0 || $code -eq 2 || $code -eq 75 || $stopping ]] && break
    say "a process ended with $code (start $tried of $attempts)"
done
[[ $code -eq 0 ]] || tail -n 5 "$logs"/process-*.log >&2
exit "$code"
