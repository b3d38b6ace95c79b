#!/usr/bin/env bash
# Run one jaxguard job on all workers of a Cloud TPU slice. Creates the slice, again after each preemption.
#
#   launch/tpu.sh --run ID --zone ZONE --type TYPE --version VERSION --bucket BUCKET [options] -- train configs/NAME.py
#
#   --run ID           run folder BUCKET/runs/ID; repeat the command to stop (and save) a running job and resume it
#   --zone, --type     zone and accelerator type, e.g. us-west4-a and v5litepod-16
#   --version VERSION  runtime of the slice, e.g. v2-alpha-tpuv5-lite
#   --bucket BUCKET    Cloud Storage bucket with hierarchical namespace; mounted as ~/out on every worker
#   --project ID       project (gcloud's default)
#   --queued           request the slice as a queued resource
#   --spot             request a preemptible slice
#   --setup COMMAND    command for every worker before the bucket is mounted, e.g. to install gcsfuse
#   --delete           delete the slice when the job is done
#   --attempts N       largest number of starts (20)
#   --poll SECONDS     seconds between checks of the slice's state (30)
#   --logs DIR         local folder for NUMBER/WORKER.log (runs/ID/launch)
#   --dry-run          print the commands, starting without a slice; run nothing
#
# Runs the committed state of this repository with the packages of launch/requirements-tpu.txt. PYTHON (python3), with
# jaxguard installed, checks the arguments first. Ctrl-C here leaves the job running. Exit code: 0 if the job completes; 2 for
# bad input; 1 after the last attempt, or after the third crash on a healthy slice.

set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=shared.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/shared.sh"

zone='' type='' version='' bucket='' project='' setup='' logs='' attempts=20 poll=30 queued='' spot='' delete=''
values=(run zone type version bucket project setup logs attempts poll) switches=(queued spot delete)
parse "$@"
out=../out/runs
place_run
cloud_name
for option in zone type version bucket; do required "--$option" "${!option}"; done
whole --attempts "$attempts"
logs=$(absolute "${logs:-runs/$run/launch}")
slice=jaxguard-$run archive=$logs/code.tar.gz
repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")
tpus=(gcloud compute tpus)
made=("--accelerator-type=$type")
[[ -z $spot ]] || made+=(--spot)

# Prepare a worker. A job survives a broken connection, but two jobs must not share chips or run folder: an old job is
# asked to save and stop.
prepare() {
    cat <<SCRIPT
set -e
if [ -f /tmp/jaxguard.pid ] && kill -TERM "\$(cat /tmp/jaxguard.pid)" 2>/dev/null; then
    for _ in \$(seq 90); do kill -0 "\$(cat /tmp/jaxguard.pid)" 2>/dev/null || break; sleep 2; done
fi
mkdir -p jaxguard out
tar -xzf jaxguard.tar.gz -C jaxguard
$setup
mountpoint -q out || gcsfuse --implicit-dirs $(quoted "$bucket") out
cd jaxguard
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python --require-hashes -r launch/requirements-tpu.txt
python3 -m uv pip install --quiet --python .venv/bin/python --no-deps .
SCRIPT
}
job="cd jaxguard && echo \$\$ >/tmp/jaxguard.pid && exec .venv/bin/jaxguard $(quoted "${words[@]}")"

state() {
    if [[ $queued ]]; then
        "${tpus[@]}" queued-resources describe "$slice" "${place[@]}" --format='value(state.state)' 2>/dev/null
    else
        "${tpus[@]}" tpu-vm describe "$slice" "${place[@]}" --format='value(state)' 2>/dev/null
    fi
}

create() {
    if [[ $queued ]]; then
        run "${tpus[@]}" queued-resources create "$slice" "--node-id=$slice" "${place[@]}" "${made[@]}" \
            "--runtime-version=$version"
    else
        run "${tpus[@]}" tpu-vm create "$slice" "${place[@]}" "${made[@]}" "--version=$version"
    fi
}

remove() {
    if [[ $queued ]]; then
        run "${tpus[@]}" queued-resources delete "$slice" "${place[@]}" --force --quiet
    else
        run "${tpus[@]}" tpu-vm delete "$slice" "${place[@]}" --quiet
    fi
}

# Wait until the slice is ready; create it if it is missing, replace it if it was preempted.
ensure() {
    local found
    while :; do
        found=$(state)
        case $found in
        READY | ACTIVE) return 0 ;;
        '') create || return 1 ;;
        CREATING | STARTING | RESTARTING | REPAIRING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | DELETING | SUSPENDING)
            sleep "$poll"
            ;;
        *)
            say "$slice is $found: creating it again"
            remove || return 1
            ;;
        esac
    done
}

everywhere() { run "${tpus[@]}" tpu-vm ssh "$slice" "${place[@]}" --worker=all "$@"; }

# attempt FOLDER: copy the code to the workers and run the job on all of them; their output goes to FOLDER.
attempt() {
    run mkdir -p "$1"
    run "${tpus[@]}" tpu-vm scp "$archive" "$slice:jaxguard.tar.gz" "${place[@]}" --worker=all || return 1
    everywhere "--command=$(prepare)" || return 1
    everywhere "--command=$job" "--output-directory=$1"
}

cd -- "$repository" || exit 1
checked elsewhere
committed "$repository"
run mkdir -p "$logs" || die "cannot make $logs"
run git -C "$repository" archive --format=tar.gz "--output=$archive" HEAD || die "cannot pack $repository"
if [[ $dry_run ]]; then
    create
    attempt "$logs/1"
    [[ -z $delete ]] || remove
    exit 0
fi
code=1 crashes=0 number=1
for ((tried = 1; tried <= attempts; tried++)); do
    if ensure; then
        while [[ -e $logs/$number ]]; do number=$((number + 1)); done
        attempt "$logs/$number"
        code=$?
        [[ $code -eq 0 || $code -eq 2 ]] && break
        say "ended with $code (attempt $tried of $attempts); logs: $logs/$number"
        # 75 is a preempted job, 255 a lost connection; any other code on a healthy slice is a crash.
        case $code:$(state) in
        75:* | 255:*) ;;
        *:READY | *:ACTIVE) crashes=$((crashes + 1)) ;;
        esac
        [[ $crashes -lt 3 ]] || break
    else
        say "no slice (attempt $tried of $attempts)"
    fi
    [[ $tried -eq $attempts ]] || sleep "$poll"
done
[[ $code -ne 0 || -z $delete ]] || remove
[[ $code -eq 0 || $code -eq 2 ]] || code=1
say "ended with $code; logs: $logs"
exit "$code"
