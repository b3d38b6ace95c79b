#!/usr/bin/env bash
# Run one jaxguard job on all workers of a Cloud TPU slice; make the slice first, and again where it is preempted.
#
#   launch/tpu.sh --run ID --zone ZONE --type TYPE --version VERSION --bucket BUCKET [options] -- train configs/NAME.py
#
#   --run ID           the run lives in BUCKET/runs/ID; the same command stops what runs of it, saving, and resumes it
#   --zone, --type     as us-west4-a and v5litepod-16
#   --version VERSION  runtime of the slice, as v2-alpha-tpuv5-lite
#   --bucket BUCKET    Cloud Storage bucket with hierarchical namespace; mounted as ~/out on every worker
#   --project ID       gcloud's own where left out
#   --queued           ask for the slice through a queued resource
#   --spot             a preemptible slice
#   --setup COMMAND    run on every worker before the bucket is mounted: what installs gcsfuse, where it is missing
#   --delete           delete the slice when the job is done
#   --attempts N       slices made and jobs started at most (20)
#   --poll SECONDS     between looks at the slice's state (30)
#   --logs DIR         on this machine: DIR/NUMBER/WORKER.log (runs/ID/launch)
#   --dry-run          print what would run, from no slice on
#
# The committed state of this repository is what runs. Ctrl-C here leaves the job running. Exit code: 0; 2 where jaxguard
# refuses its input; 1 after the last attempt, or the third crash on a slice that stands.

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

# What every worker does before the job. A job outlives a broken connection, and two must share neither the chips nor
# the run's folder: an old one is told to save and stop.
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
python3 -m uv pip install --quiet --python .venv/bin/python '.[tpu]'
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

# Until the slice is ready: make what is not there, wait for what comes, replace what was taken away.
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
            say "$slice is $found: making it anew"
            remove || return 1
            ;;
        esac
    done
}

everywhere() { run "${tpus[@]}" tpu-vm ssh "$slice" "${place[@]}" --worker=all "$@"; }

# attempt FOLDER: the code to the workers, and the job on all of them; their output goes to FOLDER.
attempt() {
    run mkdir -p "$1"
    run "${tpus[@]}" tpu-vm scp "$archive" "$slice:jaxguard.tar.gz" "${place[@]}" --worker=all || return 1
    everywhere "--command=$(prepare)" || return 1
    everywhere "--command=$job" "--output-directory=$1"
}

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
        # 75 is a preempted job, 255 a lost connection; another code while the slice stands is a crash.
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
